"""``scrimp recover`` as it is typed."""

from __future__ import annotations

import builtins
import json
import sys

import pytest
from tiny_model import write_text, write_tiny_model

import scrimp
from scrimp.cli.main import main


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("SCRIMP_THREADS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("texts") / "text.txt", 800)


@pytest.fixture(scope="module")
def small(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "small"
    scrimp.compress(model, out, format="int2:g32")
    return out


def arguments(small, model, text, out, *more):
    given = [
        "recover",
        small,
        "-o",
        out,
        "--reference",
        model,
        "--calibrate",
        text,
        "--text",
        text,
        "--steps",
        3,
        *more,
    ]
    return [str(word) for word in given]


def test_json_has_the_curve_and_the_loss(small, model, text, tmp_path, capsys):
    assert main(arguments(small, model, text, tmp_path / "out", "--json")) in (0, 4)
    document = json.loads(capsys.readouterr().out)
    assert [point["step"] for point in document["recovery"]["curve"]] == [0, 1, 2, 3]
    assert document["recovery"]["curve"][0].keys() == {"step", "seconds", "kl"}
    assert document["loss"]["kl_mean"] > 0
    assert document["file_bytes"] == sum(f.stat().st_size for f in (tmp_path / "out").iterdir())


def test_a_person_reads_the_curve_and_the_loss(small, model, text, tmp_path, capsys):
    assert main(arguments(small, model, text, tmp_path / "out")) in (0, 4)
    printed = capsys.readouterr()
    assert "held-out KL" in printed.out
    assert "KL from the reference" in printed.out
    assert "recovery" in printed.err


def test_without_torch_one_line_says_how_to_get_it(small, model, text, tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def no_torch(name, *rest, **options):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **options)

    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or name.startswith("scrimp.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", no_torch)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(arguments(small, model, text, tmp_path / "out")) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "error: Training needs torch, which is not installed.", "hint:  pip install 'scrimp[train]'",
    ]  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--minutes", "0"], 2, "minutes are out of range"),
        (["--steps", "0"], 2, "steps"),
        (["--reference", "no-such-model"], 1, "no-such-model"),
        (["--calibrate", "no-such-text"], 1, "no-such-text"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_calls_are_one_line(more, code, says, small, model, text, tmp_path, capsys):
    assert main(arguments(small, model, text, tmp_path / "out", *more)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err.splitlines()[0]
    assert not (tmp_path / "out").exists()


def test_what_is_no_compressed_model_is_refused(model, text, tmp_path, capsys):
    assert main(arguments(model, model, text, tmp_path / "out")) == 3
    assert "no compressed model" in capsys.readouterr().err


def test_files_of_others_are_not_replaced(small, model, text, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("mine")
    assert main(arguments(small, model, text, tmp_path / "out")) == 2
    assert (tmp_path / "out" / "letter.txt").read_text() == "mine"


def test_compress_can_recover_at_once(model, text, tmp_path, capsys):
    typed = ["compress", model, "-o", tmp_path / "out", "--format", "int2:g32", "--method", "gptq", "--calibrate", text,
             "--text", text, "--recover", "--recover-minutes", 0.05, "--json"]  # fmt: skip
    assert main([str(word) for word in typed]) in (0, 4)
    document = json.loads(capsys.readouterr().out)
    assert document["recovery"]["curve"][0]["step"] == 0
    assert document["loss"]["kl_mean"] > 0
    stored = json.loads((tmp_path / "out" / "scrimp.json").read_text())
    assert stored["report"]["recovery"]["before"] == document["recovery"]["before"]


def test_a_text_is_for_the_recovery_where_the_method_reads_none(model, text, tmp_path):
    typed = ["compress", model, "-o", tmp_path / "out", "--format", "int2:g32", "--calibrate", text, "--text", text,
             "--recover", "--recover-minutes", 0.02, "--json"]  # fmt: skip
    assert main([str(word) for word in typed]) in (0, 4)


def test_compress_asks_for_a_time_before_it_works(model, tmp_path, capsys):
    typed = ["compress", model, "-o", tmp_path / "out", "--format", "int2:g32", "--recover", "--recover-minutes", 0]
    assert main([str(word) for word in typed]) == 2
    assert "minutes are out of range" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
