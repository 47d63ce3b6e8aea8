"""``scrimp train`` as a user types it."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train" / "qat"))

from made_pictures import RECIPE, write

from scrimp.cli.main import main

TINY = RECIPE.replace("epochs = 6", "epochs = 2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), 300, 100)


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "r.toml").write_text(TINY)
    return tmp_path / "r.toml"


def test_a_recipe_becomes_a_store_and_a_page(recipe, data, capsys):
    out = recipe.parent / "out"
    assert main(["train", str(recipe), "-o", str(out), "--data", str(data)]) == 0
    told = capsys.readouterr()
    assert "test accuracy" in told.out
    assert "in integers" in told.out
    assert told.err.count("epoch ") == 2
    assert "left" in told.err.splitlines()[0]
    assert {file.name for file in out.iterdir()} == {"config.json", "model.safetensors", "scrimp.json", "report.html"}
    assert main(["inspect", str(out), "--json"]) == 0  # what is needed to run it: the page is not
    files = sum(file.stat().st_size for file in out.iterdir() if file.name != "report.html")
    assert json.loads(capsys.readouterr().out)["file_bytes"] == files
    assert main(["train", str(recipe), "-o", str(out), "--data", str(data)]) == 0  # in the place of the older one
    assert "holds a finished network" in capsys.readouterr().err


@pytest.mark.parametrize(("kept", "words"), [(True, "the same command goes on from"), (False, "nothing is kept")])
def test_an_interruption_says_what_is_kept(recipe, data, capsys, monkeypatch, kept, words):
    from scrimp.train.qat import run
    from scrimp.train.qat.checkpoint import checkpoint_of

    def interrupted(job, out, **rest):
        if kept:
            checkpoint_of(out).write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    assert main(["train", str(recipe), "-o", str(recipe.parent / "out"), "--data", str(data)]) == 130
    assert words in capsys.readouterr().err


def test_json_is_one_document(recipe, data, capsys):
    assert main(["train", str(recipe), "-o", str(recipe.parent / "out"), "--data", str(data), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"accuracy", "accuracy_se", "integer", "same", "layers", "curve", "seconds", "file_bytes"} <= set(document)


def test_a_dry_run_writes_nothing(recipe, data, capsys):
    before = sorted(recipe.parent.iterdir())
    assert main(["train", str(recipe), "--dry-run", "--data", str(data)]) == 0
    told = capsys.readouterr().out
    assert "fc1" in told
    assert "2 epochs of about" in told
    assert main(["train", str(recipe), "--dry-run", "--data", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["refusal"] == ""
    assert sorted(recipe.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.toml", "-o", "out"], 1, "No such file"),
        (["r.toml"], 2, "no place to write"),
        (["r.toml", "-o", "nowhere/out"], 1, "does not exist"),
        (["r.toml", "-o", "r.toml"], 2, "is not a directory"),
        (["r.toml", "-o", "."], 2, "no name for a new directory"),
        (["r.toml", "-o", "held"], 2, "holds files that scrimp did not write"),
        (["r.toml", "-o", "out", "--data", "nowhere"], 1, "pictures are missing"),
        (["bad.toml", "-o", "out"], 2, "nothing is called 'wieghts'"),
    ],
)
def test_errors_are_one_line_and_a_hint(recipe, data, capsys, monkeypatch, arguments, code, words):
    monkeypatch.chdir(recipe.parent)
    monkeypatch.setenv("SCRIMP_DATA", str(data))
    Path("held").mkdir()
    Path("held/letter.txt").write_text("words")
    Path("bad.toml").write_text(TINY.replace("[weights]", "[wieghts]"))
    assert main(["train", *arguments]) == code
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 2
    assert not Path("out").exists()
    assert told.out == ""
