"""``scrimp eval`` as a user types it, on a whole tiny model."""

import json

import pytest
from tiny_model import WORDS, write_text, write_tiny_model

from scrimp.cli.main import main

KEYS = {"model", "tokens", "nll", "nll_se", "ppl", "context", "protocol"}
REFERENCE_KEYS = {"reference", "kl_mean", "kl_median", "kl_p99", "same_top", "nll_reference"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt", 200)


def run_json(capsys, *arguments):
    assert main(["eval", *map(str, arguments), "--json"]) == 4, "random weights know less than word counts"
    return json.loads(capsys.readouterr().out)


def test_json_has_the_keys_of_the_contract(model, text, capsys):
    found = run_json(capsys, model, "--text", text, "--context", 32)
    assert set(found) >= KEYS
    assert not set(found) & REFERENCE_KEYS
    assert (found["tokens"], found["context"], found["model"]) == (6 * 31, 32, str(model))


def test_with_itself_as_reference_only_activation_rounding_is_left(model, text, capsys):
    found = run_json(capsys, model, "--text", text, "--context", 32, "--reference", model)
    assert set(found) >= KEYS | REFERENCE_KEYS
    assert found["nll_change"] == pytest.approx(found["nll"] - found["nll_reference"], abs=1e-9)
    assert 0 <= found["kl_mean"] < 0.05 < found["nll"]
    assert found["same_top"] > 0.8


def test_another_model_as_reference_is_far_away(model, text, capsys, tmp_path):
    other = write_tiny_model(tmp_path / "other", seed=9)
    found = run_json(capsys, model, "--text", text, "--context", 32, "--reference", other)
    assert found["kl_mean"] > 1
    assert found["same_top"] < 0.5


def test_random_weights_are_printed_as_broken(model, text, capsys):
    assert main(["eval", str(model), "--text", str(text), "--context", "32"]) == 4
    printed = capsys.readouterr()
    assert "BROKEN" in printed.out
    assert "6 consecutive non-overlapping windows of 32 tokens" in printed.err


def test_tasks_join_the_result(model, text, capsys, tmp_path):
    rows = [{"query": "w1 w2", "choices": ["w3 w4", "w5"], "gold": 1}] * 3
    (tmp_path / "pick.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "last.jsonl").write_text(json.dumps({"context": "w1 w2", "continuation": "w7"}))
    found = run_json(
        capsys,
        model,
        "--text",
        text,
        "--context",
        32,
        "--task",
        tmp_path / "pick.jsonl",
        "--task",
        tmp_path / "last.jsonl",
    )
    assert [(task["name"], task["n"]) for task in found["tasks"]] == [("pick", 3), ("last", 1)]
    assert found["tasks"][0]["accuracy"] in (0.0, 1.0), "the same task three times has one answer"
    assert found["tasks"][0]["accuracy_se"] == 0.0
    assert found["tasks"][1]["accuracy_se"] is None, "one task says nothing about its own spread"


def test_a_reference_with_other_words_is_refused(model, text, capsys, tmp_path):
    other = write_tiny_model(tmp_path / "other", words=WORDS[::-1])
    assert main(["eval", str(model), "--text", str(text), "--context", "32", "--reference", str(other)]) == 3
    assert "different tokens" in capsys.readouterr().err


def test_a_context_beyond_the_model_is_a_usage_error(model, text, capsys):
    assert main(["eval", str(model), "--text", str(text), "--context", "65"]) == 2
    assert "hint:" in capsys.readouterr().err


def test_a_short_text_is_refused(model, capsys, tmp_path):
    short = write_text(tmp_path / "short.txt", 31)
    assert main(["eval", str(model), "--text", str(short), "--context", "32"]) == 3
    assert "31 tokens, fewer than one window of 32" in capsys.readouterr().err


def test_a_missing_text_is_one_line(model, capsys, tmp_path):
    assert main(["eval", str(model), "--text", str(tmp_path / "none.txt")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "none.txt: No such file or directory." in printed.err
    assert "Traceback" not in printed.err
