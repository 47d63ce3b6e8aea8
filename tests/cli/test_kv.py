"""``--kv`` and ``--activations`` as a user types them, on a whole tiny model: one layer, two key heads of width 8."""

import json

import pytest
from tiny_model import write_text, write_tiny_model

from scrimp import _core
from scrimp.cli.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("texts") / "text.txt", 300)


def run_json(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == (4 if arguments[0] in ("eval", "compare") else 0)  # random weights
    return json.loads(capsys.readouterr().out)


def test_eval_measures_weights_and_cache_together(model, text, capsys):
    found = {
        kv: run_json(capsys, "eval", model, "--text", text, "--context", 32, "--reference", model, "--kv", kv)
        for kv in ("f16", "int8", "int4")
    }
    assert [one["kv"] for one in found.values()] == ["f16", "int8", "int4"]
    kl = [one["kl_mean"] for one in found.values()]
    assert kl[0] < kl[1] < kl[2]
    assert len({one["nll_reference"] for one in found.values()}) == 1, "the reference keeps its own cache"


@pytest.mark.parametrize(("kv", "size"), [("f16", 64), ("int8", 40), ("int4", 72)])
def test_bench_says_what_a_token_of_context_takes(kv, size, model, capsys):
    """Keys and values of 2 heads: 8 numbers, or codes and a scale of two bytes; int4 fills its 16 bytes."""
    found = run_json(capsys, "bench", model, "--prefill", 4, "--decode", 2, "--repeat", 1, "--kv", kv)
    assert (found["kv"], found["kv_bytes_per_token"]) == (kv, size)


def test_a_smaller_cache_is_less_to_read(model, capsys):
    arguments = ("bench", model, "--prefill", 40, "--decode", 2, "--repeat", 1)
    wide, narrow = (run_json(capsys, *arguments, "--kv", kv) for kv in ("f16", "int8"))
    assert wide["bytes_per_token"] - narrow["bytes_per_token"] == (64 - 40) * (40 + 1 + 1)


def test_run_takes_it(model, capsys):
    found = run_json(capsys, "run", model, "w1 w2", "--raw", "--max-tokens", 4, "--temperature", 0, "--kv", "int8")
    assert found["tokens"] == 4


def test_compare_takes_it(model, text, capsys):
    arguments = ("--text", text, "--context", 32, "--prefill", 4, "--decode", 2, "--rounds", 1, "--kv", "int4")
    found = run_json(capsys, "compare", model, *arguments)
    assert [(row["kv"], row["kv_bytes_per_token"]) for row in found["rows"]] == [("int4", 72)]


@pytest.mark.parametrize("verb", ["run", "chat", "eval", "bench", "compare"])
def test_another_word_is_a_usage_error(verb, model, capsys):
    assert main([verb, str(model), "--kv", "int9"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "'int9' is no format of the key/value cache." in printed.err
    assert "Did you mean" in printed.err


def test_inspect_says_what_a_token_of_context_takes(model, capsys):
    found = run_json(capsys, "inspect", model)
    assert found["kv_bytes_per_token"] == {"f16": 64, "int8": 40, "int4": 72}


def test_a_model_with_fixed_ranges_is_measured_with_them(model, text, capsys, tmp_path):
    arguments = ("--format", "int8:g32", "--activations", "static:percentile", "--calibrate", text, "--text", text)
    out = tmp_path / "fixed"
    assert main(["compress", str(model), "-o", str(out), *map(str, arguments), "--json"]) == 4, "random weights"
    report = json.loads(capsys.readouterr().out)
    assert report["loss"]["arithmetic"] == "int8-static"
    found = run_json(capsys, "eval", out, "--text", text, "--context", 32)
    assert found["arithmetic"] == "int8-static"
    assert found["isa"] in _core.available_isas()
    assert any("one fixed scale for each input (percentile)" in note for note in report["notes"])


def test_an_unknown_rule_writes_nothing(model, capsys, tmp_path):
    assert main(["compress", str(model), "-o", str(tmp_path / "out"), "--keep", "--activations", "static:best"]) == 2
    assert "no way to quantize activations" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
