"""`scrimp export` as it is typed: a stored network of pictures to C99 that runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scrimp.cli.main import main
from scrimp.integer.lower import lower
from scrimp.integer.reference import run
from scrimp.models.cnn import Image, Net, Node, Pixels
from scrimp.store.net import open_net, write_net

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integer"))
from nets import RESIDUAL, pictures_for, tensors_of


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net"
    write_net(path, RESIDUAL, tensors_of(RESIDUAL))
    return path


def test_the_plan_is_printed_and_the_directory_written(stored, tmp_path, capsys):
    assert main(["export", str(stored), "--to", "firmware", "--target", "m3", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for node in RESIDUAL.nodes:
        assert f"\n{node.name} " in said
    assert "instructions per picture" in said
    assert "fastest" in said
    assert (tmp_path / "out" / "model.c").exists()


def test_a_dry_run_needs_no_place(stored, tmp_path, capsys):
    assert main(["export", str(stored), "--dry-run"]) == 0
    assert "3 test vectors" in capsys.readouterr().out
    assert main(["export", str(stored)]) == 2
    assert "no place to write" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("cc") is None, reason="needs make and gcc")
def test_where_no_vector_fits_nothing_is_said_to_have_passed(stored, tmp_path, capsys):
    assert main(["export", str(stored), "--dry-run", "--json"]) == 0
    flash, out = json.loads(capsys.readouterr().out)["flash_bytes"], tmp_path / "out"
    assert main(["export", str(stored), "--flash", str(flash), "-o", str(out)]) == 0
    assert "no test vector fits" in capsys.readouterr().out
    assert "no test vector fits" in (out / "README.md").read_text()
    done = subprocess.run(
        ["make", "-s", "run", "WARNINGS=-Wall -Wextra -Werror"], cwd=out, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_one_json_document(stored, tmp_path, capsys):
    assert (
        main(
            [
                "export",
                str(stored),
                "--target",
                "rv32imc",
                "--flash",
                "64K",
                "--ram",
                "16K",
                "-o",
                str(tmp_path / "out"),
                "--json",
            ]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert (document["target"], document["flash_limit"], document["ram_limit"]) == ("rv32imc", 65536, 16384)
    assert [layer["name"] for layer in document["layers"]] == [node.name for node in RESIDUAL.nodes]
    assert document["flash_bytes"] <= 65536


def test_a_dry_run_writes_nothing(stored, tmp_path, capsys):
    assert main(["export", str(stored), "--dry-run", "-o", str(tmp_path / "out")]) == 0
    assert "instructions per picture" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("cc") is None, reason="needs make and gcc")
def test_the_logits_are_those_of_the_store(stored, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(stored), "-o", str(out), "--json"]) == 0
    pictures = pictures_for(RESIDUAL, 30)
    (out / "pictures.bin").write_bytes(pictures.tobytes())
    subprocess.run(["make", "-s", "all", "stream"], cwd=out, check=True, capture_output=True)
    logits = np.frombuffer((out / "logits.bin").read_bytes(), "<i4").reshape(30, -1)
    np.testing.assert_array_equal(logits, run(lower(*open_net(stored)), pictures))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--target", "z80"], 2, "'z80' is no target"),
        (["--to", "gguf"], 2, "'gguf' is nothing to export to"),
        (["--flash", "lots"], 2, "'lots' is no size of --flash"),
        (["--ram", "0"], 2, "'0' is no size of --ram"),
        (["--target", "m0", "--flash", "2K"], 4, "bytes of flash; there are 2,048"),
        (["--target", "m0", "--ram", "512"], 4, "bytes of RAM; there are 512"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(stored, tmp_path, capsys, arguments, code, words):
    assert main(["export", str(stored), "-o", str(tmp_path / "out"), *arguments]) == code
    error, hint = capsys.readouterr().err.strip().split("\n")
    assert words in error
    assert hint.startswith("hint:")
    assert list(tmp_path.iterdir()) == []


def test_what_exists_or_is_no_network_is_refused(stored, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert main(["export", str(stored), "-o", str(tmp_path / "out")]) == 3
    assert "exists" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["export", str(tmp_path / "empty"), "-o", str(tmp_path / "new")]) != 0
    assert len(capsys.readouterr().err.strip().split("\n")) <= 2
    assert not (tmp_path / "new").exists()


def test_firmware_does_not_go_into_the_store(stored, tmp_path, capsys):
    assert main(["export", str(stored), "-o", str(stored / "firmware")]) == 2
    assert "holds nothing but a network" in capsys.readouterr().err
    assert not (stored / "firmware").exists()
    assert main(["export", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("pixels", "step"), 10**400),
        (("pixels", "step"), 1e300),
        (("pixels", "step"), True),
        (("nodes", 5, "name"), "m\x1b[31m"),
        (("nodes", 5, "name"), "m" * 101),
        (("nodes", 5, "name"), "\ud800"),
        (("labels",), ["a"] * 6 + ["\x1b[31m"]),
    ],
)
def test_a_config_of_a_stranger_is_one_line(stored, tmp_path, capsys, path, value):
    """Names of pools stand in no other file; a huge step overflowed where it was multiplied."""
    shutil.copytree(stored, tmp_path / "net")
    config = json.loads((stored / "config.json").read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if path[-1] == "name":
        config["nodes"][6]["inputs"] = [value]
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    assert main(["export", str(tmp_path / "net"), "-o", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    _, hint = told.strip().split("\n")
    assert "\x1b" not in told
    assert hint.startswith("hint:")
    assert not (tmp_path / "out").exists()


def test_names_become_no_code(tmp_path):
    """Of an operation, a pool and a class."""
    names = ('*/ int x; /* "', "$(touch made)`touch made`#\\")
    nodes = (
        Node(names[0], "linear", ("input",), outputs=3),
        Node(names[1], "max_pool", (names[0],), kernel=1),
        Node("l", "linear", (names[1],), outputs=2),
    )
    net = Net(Image(2, 2, 1), Pixels(0, 1, 1 / 64), nodes, names)
    write_net(tmp_path / "net", net, tensors_of(net))
    assert main(["export", str(tmp_path / "net"), "-o", str(tmp_path / "out"), "--target", "m3", "--json"]) == 0
    for file in (tmp_path / "out").rglob("*"):
        assert not file.is_file() or not any(name in file.read_text() for name in names), file


def test_a_huge_picture_is_no_test_vector(tmp_path, capsys):
    """Noise for it took minutes."""
    nodes = (Node("p", "max_pool", ("input",), kernel=1200, stride=1200), Node("l", "linear", ("p",), outputs=2))
    net = Net(Image(1200, 1200, 1), Pixels(0, 1, 1 / 64), nodes)
    write_net(tmp_path / "net", net, tensors_of(net))
    assert main(["export", str(tmp_path / "net"), "-o", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vectors"] == 0
