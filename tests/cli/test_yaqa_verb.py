"""``scrimp compress --method yaqa`` as it is typed."""

from __future__ import annotations

import json
import sys

import pytest
from tiny_model import write_text, write_tiny_model

from scrimp.cli.main import main


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("SCRIMP_THREADS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def arguments(model, out, method, *more):
    text = write_text(out.parent / "text.txt", 800)
    given = [
        "compress",
        model,
        "-o",
        out,
        "--format",
        "int3:g32",
        "--method",
        method,
        "--calibrate",
        text,
        "--text",
        text,
    ]
    return [str(word) for word in (*given, "--json", *more)]


def test_the_body_is_rounded_by_it_and_the_ends_are_not(model, tmp_path, capsys):
    assert main(arguments(model, tmp_path / "out", "yaqa")) in (0, 4)
    document = json.loads(capsys.readouterr().out)
    assert {tensor["method"] for tensor in document["tensors"]} >= {"yaqa"}
    assert document["loss"]["kl_mean"] > 0
    (of_head,) = [note for note in document["notes"] if "rounded as gptq" in note]
    assert of_head.startswith(("lm_head.weight", "model.embed_tokens.weight"))
    assert main(arguments(model, tmp_path / "gptq", "gptq")) in (0, 4)
    parts = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "gptq")]
    assert parts[0] != parts[1]


def test_the_forecast_counts_its_gradients(model, tmp_path, capsys):
    assert main(arguments(model, tmp_path / "out", "yaqa", "--dry-run")) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] > 0


def test_without_torch_one_line_says_how_to_get_it(model, tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torch" or name.startswith("scrimp.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(arguments(model, tmp_path / "out", "yaqa")) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-2:] == [
        "error: The method yaqa needs torch, which is not installed.", "hint:  pip install 'scrimp[train]'",
    ]  # fmt: skip
    assert not [path for path in tmp_path.iterdir() if path.name != "text.txt"]


def test_nothing_goes_before_it(model, tmp_path, capsys):
    assert main(arguments(model, tmp_path / "out", "awq+yaqa")) == 2
    assert "'awq+yaqa' is no known method" in capsys.readouterr().err
