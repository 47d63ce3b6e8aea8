"""``scrimp inspect`` as a user types it, on a tiny model and on what was made of it."""

import json

import numpy as np
import pytest
from tiny_model import write_tiny_model

import scrimp
from scrimp.cli.inspect import bars
from scrimp.cli.main import main
from scrimp.sources import open_source

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    original = write_tiny_model(directory / "tiny")
    scrimp.compress(original, directory / "small", format="int4:g32", rules=["*.down_proj=ternary"])
    return original, directory / "small"


def run_json(capsys, *arguments):
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_the_keys_of_the_contract(models, capsys):
    for model in models:
        found = run_json(capsys, model)
        assert set(found) >= {"file_bytes", "parameters", "bits_per_weight", "tensors"}
        for tensor in found["tensors"]:
            assert set(tensor) >= {"name", "shape", "format", "bytes", "bits_per_weight", "entropy_bits"}


def test_totals_count_every_file_and_every_parameter(models, capsys):
    original, small = (run_json(capsys, model) for model in models)
    assert original["parameters"] == small["parameters"] == sum(np.prod(t["shape"]) for t in original["tensors"])
    assert small["file_bytes"] == sum(path.stat().st_size for path in models[1].iterdir())
    assert small["bits_per_weight"] == 8 * small["file_bytes"] / small["parameters"]


def test_numbers_are_those_of_the_decoded_tensor(models, capsys):
    found = {tensor["name"]: tensor for tensor in run_json(capsys, models[1])["tensors"]}
    with open_source(models[1]) as source:
        values = source.read(UP).dequantize().astype(np.float64)
        nbytes = source.read(UP).nbytes
    tensor = found[UP]
    assert (tensor["format"], tensor["shape"], tensor["bytes"]) == ("int4:g32", [64, 32], nbytes)
    assert (tensor["min"], tensor["max"]) == (values.min(), values.max())
    # float32 sums of rows of 32
    assert tensor["mean"] == pytest.approx(values.mean(), abs=33 * 2.0**-24 * abs(values).mean())
    assert tensor["std"] == pytest.approx(values.std(), rel=40 * 2.0**-24)
    assert found["model.layers.0.mlp.down_proj.weight"]["format"] == "ternary:row"
    assert 0 < found[UP]["entropy_bits"] <= 4
    assert found["model.norm.weight"]["entropy_bits"] is None


def test_a_table_names_every_tensor_and_the_totals(models, capsys):
    assert main(["inspect", str(models[1])]) == 0
    out = capsys.readouterr().out
    assert UP in out
    assert "bits per weight, everything included" in out


def test_one_tensor_shows_its_histogram(models, capsys):
    assert main(["inspect", str(models[1]), "--tensor", UP.removesuffix(".weight")]) == 0
    out = capsys.readouterr().out
    assert "█" in out
    assert "% of what the codes can hold" in out
    found = run_json(capsys, models[1], "--tensor", UP)
    assert sum(found["histogram"]["counts"]) == 64 * 32


def test_a_tensor_that_is_not_there_exits_2_and_names_the_nearest(models, capsys):
    assert main(["inspect", str(models[1]), "--tensor", "model.layers.0.mlp.up_pro"]) == 2
    assert UP in capsys.readouterr().err


def test_bars_show_whatever_is_not_empty():
    assert bars([0, 1, 1000]) == " ▁█"
    assert bars([0, 0]) == "  "
