"""``scrimp compress`` as a user types it, on a whole tiny model."""

import json

import pytest
from safetensors.numpy import load_file
from tiny_model import WORDS, write_text, write_tiny_model

import scrimp
from scrimp.cli.main import main

KEYS = {"out", "file_bytes", "bits_per_weight", "seconds", "rss_peak_bytes", "tensors"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def parameters(model):
    return sum(values.size for values in load_file(model / "model.safetensors").values())


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt", 400)


def run(*arguments):
    return main(["compress", *map(str, arguments)])


def run_json(capsys, *arguments):
    code = run(*arguments, "--json")
    captured = capsys.readouterr()
    found = json.loads(captured.out) if code in (0, 4) else {}
    # random weights may well know less than word counts do, and then the exit code must say so
    broken = "loss" in found and found["loss"]["broken"]
    assert code == (4 if broken else 0), captured.err
    return found


def test_json_has_the_keys_of_the_contract(model, parameters, text, tmp_path, capsys):
    found = run_json(capsys, model, "-o", tmp_path / "out", "--format", "int4:g32", "--text", text)
    assert set(found) >= KEYS | {"loss"}
    assert {"name", "format", "method", "error"} == set(found["tensors"][0])
    assert set(found["loss"]) >= {"nll", "ppl", "kl_mean", "same_top", "nll_reference", "protocol"}
    assert found["file_bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert found["bits_per_weight"] == pytest.approx(8 * found["file_bytes"] / parameters)
    record = json.loads((tmp_path / "out" / "scrimp.json").read_text())
    assert record["report"]["loss"] == found["loss"]
    assert record["report"]["tensors"] == found["tensors"]


def test_scrimp_json_is_valid_json_even_where_an_error_is_unknown(model, tmp_path, capsys):
    one_window = write_text(tmp_path / "short.txt", 70)
    found = run_json(capsys, model, "-o", tmp_path / "out", "--format", "int4:g32", "--text", one_window)
    assert found["loss"]["nll_se"] is None

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    json.loads((tmp_path / "out" / "scrimp.json").read_text(), parse_constant=refuse)


def test_no_loss_is_measured_when_none_is_wanted(model, tmp_path, capsys):
    assert "loss" not in run_json(capsys, model, "-o", tmp_path / "out", "--format", "int4:g32", "--no-loss")


def test_fewer_bits_lose_more_and_lossless_ones_only_round_activations(model, text, tmp_path, capsys):
    losses = [
        run_json(capsys, model, "-o", tmp_path / name, "--format", name, "--embedding", "f32", "--text", text)["loss"][
            "kl_mean"
        ]
        for name in ("f32", "int6:g32", "int3:g32")
    ]
    assert losses == sorted(losses)
    assert losses[0] < losses[2] / 4


def test_the_result_speaks_and_evaluates(model, text, tmp_path, capsys):
    run_json(capsys, model, "-o", tmp_path / "out", "--format", "int8:g32", "--no-loss")
    with scrimp.open(tmp_path / "out") as small, scrimp.open(model) as original:
        tokens = small.tokenizer.encode("w1 w2 w3")
        assert tokens == original.tokenizer.encode("w1 w2 w3")
        assert small.logits(tokens).shape == (3, len(WORDS))
        assert abs(small.logits(tokens) - original.logits(tokens)).max() < 0.1 * abs(original.logits(tokens)).max()


def test_a_dry_run_predicts_the_size_and_writes_nothing(model, tmp_path, capsys):
    arguments = (model, "--format", "int4:g32", "--rule", "*.down_proj=ternary@rtn:absmax")
    planned = run_json(capsys, *arguments, "-o", tmp_path / "out", "--dry-run")
    assert list(tmp_path.iterdir()) == []
    assert {"name": "model.layers.0.mlp.down_proj.weight", "format": "ternary:row", "method": "rtn:absmax"} in planned[
        "tensors"
    ]
    done = run_json(capsys, *arguments, "-o", tmp_path / "out", "--no-loss")
    # room for the record of a loss is counted in, and digits of errors vary
    assert 0 <= planned["file_bytes"] - done["file_bytes"] < 3000


def test_the_prediction_comes_first_and_then_the_loss(model, text, tmp_path, capsys):
    assert run(model, "-o", tmp_path / "out", "--format", "int4:g32", "--text", text) in (0, 4)
    out = capsys.readouterr().out
    places = [out.index(word) for word in ("planned", "time, about", "memory, about", "written", "perplexity")]
    assert places == sorted(places)


def test_a_broken_result_says_so_and_exits_4(tmp_path, text, capsys):
    loud = write_tiny_model(tmp_path / "loud", seed=3)
    # the words of the text are drawn evenly; a network with strong random opinions is worse than counting them
    code = run(loud, "-o", tmp_path / "out", "--format", "binary", "--text", text)
    captured = capsys.readouterr()
    assert code == 4
    assert "BROKEN" in captured.out
    assert "Use more bits" in captured.err
    assert (tmp_path / "out" / "scrimp.json").is_file()


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """Sensitivities are remembered in the cache directory."""
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.mark.usefixtures("own_cache")
def test_a_largest_loss_makes_the_smallest_plan_within_it(model, tmp_path, capsys):
    tight = run_json(capsys, model, "-o", tmp_path / "tight", "--kl", "0.01", "--no-loss")
    loose = run_json(capsys, model, "-o", tmp_path / "loose", "--kl", "0.1", "--no-loss")
    assert loose["file_bytes"] < tight["file_bytes"]
    assert any("planned by measured sensitivities" in note for note in loose["notes"])
    for wrong in ("0", "-1", "nan", "inf"):
        assert run(model, "-o", tmp_path / "no", "--kl", wrong) == 2


@pytest.mark.usefixtures("own_cache")
def test_a_size_that_fits_is_kept_to(model, parameters, tmp_path, capsys):
    large = run_json(capsys, model, "--dry-run", "--format", "int8:g32")["file_bytes"]
    small = run_json(capsys, model, "--dry-run", "--format", "int2:g128", "--embedding", "int4")["file_bytes"]
    limit = (large + small) // 2
    found = run_json(capsys, model, "-o", tmp_path / "out", "--size", limit, "--no-loss")
    assert found["file_bytes"] <= limit
    bits = run_json(capsys, model, "-o", tmp_path / "bits", "--bits", 8 * limit / parameters, "--no-loss")
    assert [t["format"] for t in bits["tensors"]] == [t["format"] for t in found["tensors"]]


@pytest.mark.usefixtures("own_cache")
def test_a_size_that_nothing_reaches_exits_4_and_names_the_smallest(model, tmp_path, capsys):
    assert run(model, "-o", tmp_path / "out", "--size", "1KB") == 4
    assert "the smallest takes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_keep_repacks_without_loss(model, tmp_path, capsys):
    run_json(capsys, model, "-o", tmp_path / "one", "--format", "int4:g32", "--no-loss")
    found = run_json(capsys, tmp_path / "one", "-o", tmp_path / "two", "--keep", "--no-loss")
    assert {tensor["error"] for tensor in found["tensors"]} == {0.0}
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_store_may_be_compressed_into_itself(model, text, tmp_path, capsys):
    out = tmp_path / "out"
    run_json(capsys, model, "-o", out, "--format", "int8:g32", "--no-loss")
    found = run_json(capsys, out, "-o", out, "--format", "int4:g32", "--text", text)
    assert found["loss"]["kl_mean"] > 0
    with scrimp.open(out) as smaller:
        assert smaller.source.tensors["model.layers.0.mlp.up_proj.weight"].stored == "int4:g32"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--format", "int4", "--bits", "4"], "exactly one of"),
    ([], "exactly one of"),
    (["--format", "int44"], "no known format"),
    (["--format", "int4", "--method", "rtnn"], "no known method"),
    (["--format", "int4", "--rule", "*.nothing=int8"], "matches no matrix"),
    (["--keep", "--rule", "*=int8"], "--keep changes no format"),
    (["--size", "big"], "is not a size"),
])  # fmt: skip
def test_a_wrong_call_exits_2_in_one_sentence(model, tmp_path, capsys, arguments, message):
    assert run(model, "-o", tmp_path / "out", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_to_write_it_is_a_usage_error(model, capsys):
    assert run(model, "--format", "int4") == 2
    assert "-o" in capsys.readouterr().err


def test_a_directory_of_someone_else_is_left_alone(model, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert run(model, "-o", tmp_path / "mine", "--format", "int4") == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_python_and_the_command_line_do_the_same(model, text, tmp_path, capsys):
    typed = run_json(capsys, model, "-o", tmp_path / "typed", "--format", "int4:g32", "--text", text)
    report = scrimp.compress(model, tmp_path / "called", format="int4:g32", text=text, max_tokens=4096)
    assert report.to_json()["tensors"] == typed["tensors"]
    assert report.loss.to_json()["nll"] == typed["loss"]["nll"]
    typed_bytes, called_bytes = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("typed", "called"))
    assert typed_bytes == called_bytes


def test_pack_makes_it_smaller_and_changes_nothing_else(model, tmp_path, capsys, parameters):
    arguments = (model, "--format", "int4:g32", "--no-loss")
    plain = run_json(capsys, *arguments, "-o", tmp_path / "plain")
    packed = run_json(capsys, *arguments, "-o", tmp_path / "packed", "--pack")
    assert packed["file_bytes"] == sum(path.stat().st_size for path in (tmp_path / "packed").iterdir())
    assert packed["file_bytes"] < plain["file_bytes"]
    assert packed["bits_per_weight"] == 8 * packed["file_bytes"] / parameters
    assert packed["tensors"] == plain["tensors"]
    with scrimp.open(tmp_path / "plain") as one, scrimp.open(tmp_path / "packed") as other:
        assert (one.logits([1, 2, 3]) == other.logits([1, 2, 3])).all()


def test_what_is_told_before_packing_is_an_upper_bound(model, tmp_path, capsys):
    planned = run_json(capsys, model, "--format", "int4:g32", "--pack", "--dry-run")
    assert run("--format", "int4:g32", "--pack", "--dry-run", model) == 0
    assert "size, at most" in capsys.readouterr().out
    written = run_json(capsys, model, "--format", "int4:g32", "--pack", "-o", tmp_path / "out", "--no-loss")
    assert written["file_bytes"] <= planned["file_bytes"]


def test_a_quantized_source_is_packed_without_loss(model, tmp_path, capsys):
    run_json(capsys, model, "--format", "int4:g32", "-o", tmp_path / "plain", "--no-loss")
    packed = run_json(capsys, tmp_path / "plain", "--keep", "--pack", "-o", tmp_path / "packed", "--no-loss")
    assert all(tensor["error"] == 0 for tensor in packed["tensors"])
    back = run_json(capsys, tmp_path / "packed", "--keep", "-o", tmp_path / "back", "--no-loss")
    assert back["file_bytes"] > packed["file_bytes"]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "back")]
    assert files[0] == files[1]
