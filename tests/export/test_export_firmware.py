"""The directory that is written: complete or not there, the same bytes each time, and harmless whatever it is given."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
from chip_nets import made
from random_programs import pictures_for

from scrimp.errors import GoalNotMet, Refused, UsageError
from scrimp.export.firmware import export_firmware, plan_firmware
from scrimp.export.firmware.simulate import advice, build, missing, stream
from scrimp.export.firmware.targets import TARGETS
from scrimp.export.firmware.vectors import noise
from scrimp.integer.reference import run


def tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        export_firmware(made("residual"), tmp_path / name, target="m3")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert not (tmp_path / "a" / "runtime" / "product_t5.c").exists()


def test_the_plan_is_seen_before_anything_is_written(tmp_path):
    seen = []

    def look(report):
        assert list(tmp_path.iterdir()) == []
        seen.append(report)

    report = export_firmware(made("residual"), tmp_path / "out", target="rv32ec", planned=look)
    assert seen == [report]
    document = report.to_json()
    assert document["target"] == "rv32ec"
    assert document["flash_bytes"] == sum(document[part] for part in ("weight_bytes", "parameter_bytes", "code_bytes"))
    assert len(document["layers"]) == 9
    assert plan_firmware(made("residual"), target="rv32ec").to_json() == {**document, "out": None}


@pytest.mark.parametrize(
    ("error", "arguments"),
    [
        (UsageError, {"target": "z80"}),
        (GoalNotMet, {"target": "m0", "flash": 1000}),
        (GoalNotMet, {"target": "m0", "ram": 300}),
        (UsageError, {"target": "m0", "packings": {"a": "T5"}}),
        (Refused, {"target": "m0", "pictures": np.zeros((1, 2, 2, 3), np.uint8)}),
    ],
)
def test_what_fails_leaves_nothing(tmp_path, error, arguments):
    with pytest.raises(error) as failed:
        export_firmware(made("residual"), tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []
    assert "\n" not in str(failed.value)


def test_what_exists_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(Refused, match="out exists"):
        export_firmware(made("residual"), tmp_path / "out", target="host")
    assert tree(tmp_path) == {"out/mine": b"x"}
    with pytest.raises(Refused, match="does not exist"):
        export_firmware(made("residual"), tmp_path / "no" / "out", target="host")


def test_a_disk_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("scrimp.export.firmware.project._copy", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        export_firmware(made("residual"), tmp_path / "out", target="host")
    assert list(tmp_path.iterdir()) == []


HOSTILE = '*/ int x = system("rm -rf /"); /* ??/\n#include "/etc/passwd"'


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("cc") is None, reason="needs make and gcc")
@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_it_builds_and_runs_here_whatever_the_names(tmp_path, name):
    program = made(name)
    ops = tuple(dataclasses.replace(op, name=f"{HOSTILE}{i}") for i, op in enumerate(program.ops))
    program = dataclasses.replace(program, ops=ops)
    out = tmp_path / "out"
    export_firmware(program, out, target="host")
    assert "passwd" not in (out / "model.c").read_text().replace("etc_passwd", "")
    assert "<" not in (out / "README.md").read_text()
    build(out, ["WARNINGS=-Wall -Wextra -pedantic -Werror"])
    assert subprocess.run(["make", "-s", "run"], cwd=out, capture_output=True, text=True).stdout == "passed\n"
    pictures = pictures_for(program, 9)
    np.testing.assert_array_equal(
        stream(out, TARGETS["host"], pictures, program.classes).logits, run(program, pictures)
    )


@pytest.mark.skipif(shutil.which("make") is None or shutil.which("cc") is None, reason="needs make and gcc")
def test_a_wrong_logit_fails_the_vectors(tmp_path):
    program, out = made("residual"), tmp_path / "out"
    export_firmware(program, out, target="host", pictures=pictures_for(program, 2))
    before = run(program, pictures_for(program, 2))[1, 3]
    text = (out / "vectors.h").read_text()
    assert text.count(f" {before},") == 1
    (out / "vectors.h").write_text(text.replace(f" {before},", f" {before + 1},"))
    build(out)
    done = subprocess.run(["./build/firmware.elf"], cwd=out, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "FAILED\n")


def test_noise_is_noise():
    """xorshift32 from its own definition, and every byte about as often as the others."""
    found = noise(made("residual"), 3).reshape(-1)
    state, expected = 2463534242, []
    for _ in range(4):
        for shift in (13, -17, 5):
            state ^= (state << shift if shift > 0 else state >> -shift) & 0xFFFFFFFF
        expected.append(state >> 24)
    np.testing.assert_array_equal(found[:4], expected)
    assert np.unique(found).size > 200


def test_missing_tools_are_named_as_packages(monkeypatch):
    monkeypatch.setattr("scrimp.export.firmware.simulate.shutil.which", lambda tool: None)
    assert missing(TARGETS["rv32ec"]) == ["gcc", "gcc-riscv64-unknown-elf", "make", "qemu-system-misc"]
    assert "gcc-arm-none-eabi" in advice()
    monkeypatch.setattr("scrimp.export.firmware.simulate.shutil.which", lambda tool: f"/usr/bin/{tool}")
    assert missing(TARGETS["cortex-m3"]) == []
    assert advice() == "every chip can be played here"
