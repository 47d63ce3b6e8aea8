"""``scrimp bench --beside llama.cpp``, beside a module that only says it was llama.cpp."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from scrimp.cli.main import main

sys.path.append(str(Path(__file__).resolve().parents[1] / "sources"))
from tiny_llama import weights, write_gguf

FAKES = Path(__file__).parent / "fakes"
TOKENS = [(7919 * i) % 40 for i in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_gguf(path, weights())
    return path


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The fake in place; what it was asked, word by word."""
    log = tmp_path / "calls"
    monkeypatch.setenv("FAKE_LLAMA_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(FAKES), *sys.path))))
    monkeypatch.syspath_prepend(str(FAKES))
    return lambda: [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def run(model, *arguments):
    return main(["bench", str(model), "--prefill", "8", "--decode", "4", "--repeat", "3", "--threads", "1",
                 "--beside", "llama.cpp", *arguments])  # fmt: skip


def test_both_get_the_same_file_threads_and_tokens(model, calls, capsys):
    assert run(model, "--json") == 0
    found = json.loads(capsys.readouterr().out)["beside"]
    asked = calls()
    assert ["load", str(model), "0"] in asked
    assert ["context", "12", "1", "1"] in asked
    turn = [["clear"], ["decode", *map(str, TOKENS[:8])], *(["decode", str(token)] for token in TOKENS[8:])]
    assert asked[-4 * len(turn) :] == 4 * turn, "once to be warm, then three turns"
    assert (found["peer"], found["version"], found["features"]) == ("llama.cpp", "0.0.fake", "FAKE = 1")
    assert (found["file"], found["threads"]) == ("tiny.gguf", 1)
    for phase in ("prefill", "decode"):
        mine, theirs, ratio = (found[phase][key] for key in ("scrimp", "peer", "ratio"))
        assert mine["n"] == theirs["n"] == 3
        assert 0 < theirs["min"] <= theirs["median"] <= theirs["max"] <= 2000, "half a millisecond a token"
        assert mine["min"] / theirs["max"] <= ratio <= mine["max"] / theirs["min"]
    assert "llama_cpp" not in sys.modules, "it lives in its own process"


def test_a_table_for_people(model, calls, capsys):
    assert run(model) == 0
    printed = capsys.readouterr().out
    assert "beside llama.cpp 0.0.fake" in printed
    assert "ratio" in printed
    assert printed.count("decode of 4") == 2, "alone and beside"


def test_without_the_flag_nothing_is_asked(model, calls, capsys):
    arguments = ["bench", str(model), "--prefill", "4", "--decode", "2", "--repeat", "1", "--threads", "1", "--json"]
    assert main(arguments) == 0
    assert calls() == []
    assert "beside" not in json.loads(capsys.readouterr().out)


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama.cpp is here")
def test_where_it_is_not_installed_a_line_says_so_at_once(model, capsys):
    assert run(model) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "llama.cpp is not here" in printed.err
    assert "pip install" in printed.err
    assert "Traceback" not in printed.err


def test_what_it_cannot_open_is_a_usage_error(model, calls, tmp_path, capsys):
    assert run(write_tiny_model(tmp_path / "tiny")) == 2
    assert "opens only GGUF files" in capsys.readouterr().err
    assert main(["bench", "--shape", "tiny:int4", "--beside", "llama.cpp"]) == 2
    assert "needs a file" in capsys.readouterr().err
    assert main(["bench", str(model), "--beside", "vllm"]) == 2
    assert "no engine 'vllm'" in capsys.readouterr().err
    assert run(model, "--kv", "int8") == 2
    assert "float16" in capsys.readouterr().err
    assert calls() == []


@pytest.mark.parametrize(("how", "words"), [
    ("load", "llama.cpp cannot open"), ("decode", "llama_decode failed"), ("crash", "ended with 7"),
])  # fmt: skip
def test_its_failure_is_one_line(model, calls, monkeypatch, capsys, how, words):
    monkeypatch.setenv("FAKE_LLAMA_FAILS", how)
    assert run(model) == 1
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
