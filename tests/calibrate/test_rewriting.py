"""Rewrites in the walk: the stored network is the original one, whatever was scaled and whenever it was interrupted."""

import numpy as np
import pytest
from networks import write_network
from test_statistics import assert_describes, whole_inputs
from test_walked import Recorded, hybrid_inputs, windows_of

from scrimp import models
from scrimp.calibrate.split import split
from scrimp.formats import parse
from scrimp.model import Model
from scrimp.quantize import rtn, walked
from scrimp.quantize.compress import compress, run
from scrimp.quantize.decoded import decode
from scrimp.quantize.fold import Scaling, shared
from scrimp.quantize.job import prepare
from scrimp.quantize.methods import REWRITES
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store.partial import Partial

#: int16 loses about 2^-15 of a block's largest weight, so a stored network shows whether it is still the same.
HOW = {"format": "int16:g32", "embedding": "int16:g32", "method": "stretch+rtn", "calibrate_windows": 5}
TOKENS = np.random.default_rng(4).integers(0, 50, 24)
KINDS = {"llama": {}, "llama, tied": {"tie_word_embeddings": True}, "qwen2": {"model_type": "qwen2"}}


class Stretch:
    """A stand-in for searches: factors that depend on the statistics, and much; ``but`` names groups to leave."""

    def __init__(self):
        self.power, self.but, self.seen = 1.0, "nothing", []

    def __call__(self, group, weights, statistics, formats, rounds):
        assert tuple(weights) == tuple(formats) == tuple(rounds) == group.readers
        self.seen.append((group, weights, statistics))
        if any(self.but in name for name in group.readers):
            return Scaling(None, ("left alone",))
        return Scaling(np.exp2(self.power * np.sin(1e3 * statistics.magnitude)) * (0.5 + statistics.magnitude))


@pytest.fixture
def stretch(monkeypatch):
    found = Stretch()
    monkeypatch.setitem(REWRITES, "stretch", (found, "rtn", "tests"))
    return found


@pytest.fixture(params=KINDS, ids=str)
def network(request, tmp_path):
    return write_network(tmp_path / "model", **KINDS[request.param])


@pytest.fixture
def recorded(monkeypatch):
    return Recorded(monkeypatch).of


def logits(path):
    with open_source(path) as source:
        return Model(source, arithmetic="f32", context=32).logits(TOKENS)


def assert_the_same_network(out, original):
    expected = logits(original)
    assert np.abs(logits(out) - expected).max() < 2e-3 * np.abs(expected).max()


def changed_vectors(out, original):
    with open_source(out) as small, open_source(original) as whole:
        vectors = [name for name, info in whole.tensors.items() if len(info.shape) == 1]
        return {name for name in vectors if (small.read(name) != whole.read(name)).any()}


@pytest.mark.parametrize("prefix", ["quantized", "original"])
def test_a_rewritten_network_is_the_original_one(prefix, stretch, network, tmp_path, text):
    report = compress(network, tmp_path / "out", calibrate=text, calibrate_prefix=prefix, **HOW)
    assert_the_same_network(tmp_path / "out", network)
    changed = changed_vectors(tmp_path / "out", network)
    assert {name for name in changed if "layernorm" in name} == {
        f"model.layers.{i}.{kind}_layernorm.weight" for i in range(3) for kind in ("input", "post_attention")
    }
    assert ("model.layers.0.self_attn.v_proj.bias" in changed) == ("qwen2" in (network / "config.json").read_text())
    assert not any("q_proj.bias" in name or "k_proj.bias" in name for name in changed)
    assert {tensor.method for tensor in report.tensors if "proj" in tensor.name} == {"stretch+rtn"}
    tied = "model.norm.weight" not in changed
    assert len(stretch.seen) == 3 * 4 + (not tied)
    assert tied == any(
        note == "not rewritten: model.embed_tokens.weight; model.embed_tokens.weight is used in more than one place"
        for note in report.notes
    )


@pytest.mark.parametrize("format", ["int4:g32", "nf4:g32", "int16:g32"])
def test_each_block_is_measured_behind_the_rewritten_ones(format, stretch, tmp_path, text, monkeypatch):
    path, measured, real = write_network(tmp_path / "model"), {}, walked.rewrite

    def recorded(groups, plan, matrices, vectors, statistics):
        measured.update(statistics)
        return real(groups, plan, matrices, vectors, statistics)

    monkeypatch.setattr(walked, "rewrite", recorded)
    how = {**HOW, "format": format, "calibrate": text}
    run(job := prepare(path, Wish(**how)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    with open_source(tmp_path / "out") as small, job.source as original:
        for block in split(models.build(job.source.config)[1])[1:]:
            inputs = hybrid_inputs(original, small, {*block.matrices, *block.program.vectors})
            for name in block.reads:
                assert_describes(measured[name], inputs[name], 2e-3)


def test_a_method_is_given_the_statistics_of_what_the_rewritten_matrix_reads(stretch, recorded, tmp_path, text):
    path = write_network(tmp_path / "model")
    compress(path, tmp_path / "out", calibrate=text, **HOW)
    for group, weights, before in stretch.seen[:]:
        s = shared(group, stretch(group, weights, before, *[dict.fromkeys(weights)] * 2).s).astype(np.float64)
        after = {id(recorded[name]): recorded[name] for name in group.readers}
        (found,) = after.values()
        assert np.allclose(found.moments * np.outer(s, s), before.moments, rtol=1e-12)
        assert np.allclose(found.magnitude * s, before.magnitude)
    assert len(stretch.seen) == 2 * (3 * 4 + 1)


@pytest.mark.parametrize("finished", [5, 14, 27])
def test_an_interrupted_rewrite_ends_in_the_same_bytes(finished, stretch, network, tmp_path, text, monkeypatch):
    straight = compress(network, tmp_path / "straight", calibrate=text, **HOW)
    interrupt(network, tmp_path / "out", text, finished, monkeypatch)
    report = compress(network, tmp_path / "out", calibrate=text, **HOW)
    assert report.resumed <= finished
    assert report.tensors == straight.tensors
    assert report.notes == straight.notes
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "out"))
    assert first == second


@pytest.mark.parametrize("finished", [8, 12, 21])
def test_other_factors_after_an_interruption_still_fit_each_other(
    finished, stretch, network, tmp_path, text, monkeypatch
):
    """As on another machine, whose last bits differ: no matrix may meet a vector of the first attempt. Twice."""
    for power in (1.0, 0.5):
        stretch.power = power
        interrupt(network, tmp_path / "out", text, finished, monkeypatch)
    stretch.power = -1.0
    compress(network, tmp_path / "out", calibrate=text, **HOW)
    assert_the_same_network(tmp_path / "out", network)


def interrupt(network, out, text, finished, monkeypatch):
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == finished:
            raise KeyboardInterrupt
        write(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Partial, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            compress(network, out, calibrate=text, **HOW)


def test_a_search_that_finds_nothing_leaves_the_group_and_says_so(stretch, tmp_path, text):
    stretch.but = "q_proj"
    report = compress(path := write_network(tmp_path / "model"), tmp_path / "out", calibrate=text, **HOW)
    assert [note for note in report.notes if "left alone" in note] == [
        f"model.layers.{i}.self_attn.q_proj.weight: left alone" for i in range(3)
    ]
    assert not any("input_layernorm" in name for name in changed_vectors(tmp_path / "out", path))
    assert_the_same_network(tmp_path / "out", path)


def test_matrices_that_want_different_things_are_not_rewritten(stretch, tmp_path, text):
    path = write_network(tmp_path / "model")
    rules = ["*.1.self_attn.q_proj=int8:g32@rtn", "*.2.mlp.up_proj=int8:g32@rtn"]
    report = compress(path, tmp_path / "out", calibrate=text, rules=rules, **HOW)
    why = "others that read the same inputs have other methods"
    assert f"not rewritten: 5 matrices such as model.layers.1.self_attn.q_proj.weight; {why}" in report.notes
    assert len(stretch.seen) == 3 * 4 + 1 - 2
    assert any("model.layers.2.mlp.down_proj.weight" in group.readers for group, *_ in stretch.seen)
    with open_source(tmp_path / "out") as small, open_source(path) as whole:
        assert (small.read("model.layers.1.input_layernorm.weight")
                == whole.read("model.layers.1.input_layernorm.weight")).all()  # fmt: skip


def test_a_plan_without_rewrites_changes_no_vector(stand_in, network, tmp_path, text):
    compress(network, tmp_path / "out", calibrate=text, **{**HOW, "method": "stand-in"})
    assert not changed_vectors(tmp_path / "out", network)


@pytest.mark.parametrize("method", ["awq", "smoothquant", "awq+gptq"])
def test_the_prediction_knows_the_search(method, stretch, tmp_path, text):
    path = write_network(tmp_path / "model")
    with (job := prepare(path, Wish(method=method, format="int4:g32", calibrate=text))).source:
        assert job.predict().seconds > 0


@pytest.mark.parametrize("method", ["awq", "awq+rtn"])
def test_awq_errs_less_than_rounding_in_every_layer(method, network, tmp_path, text, monkeypatch):
    """The oracle rounds the source's matrices, and multiplies with the inputs of the whole original network."""
    how = {"format": "int3:g32", "calibrate_windows": 5, "calibrate": text, "calibrate_prefix": "original"}
    report = run(job := prepare(network, Wish(method=method, **how)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    told = {tensor.name: tensor.output_error for tensor in report.tensors}
    with job.source as source:
        for name, x in whole_inputs(source).items():
            if "o_proj" in name or "down_proj" in name:  # groups of one matrix, whose rows nothing divides
                weight = decode(source.read(name))
                rounded = rtn.quantize(weight, parse("int3:g32")).dequantize().astype(np.float64)
                plain = np.linalg.norm(x @ (weight - rounded).T) / np.linalg.norm(x @ weight.T)
                assert told[name] <= plain * (1 + 1e-3)  # float32 inputs
                assert told[name] < plain or any(name in note and "none errs less" in note for note in report.notes)
    assert any("layernorm" in name for name in changed_vectors(tmp_path / "out", network))


@pytest.mark.parametrize("method", ["awq+gptq+refit", "smoothquant", "smoothquant+gptq"])
def test_rewrites_compose_and_an_interruption_changes_no_byte(method, network, tmp_path, text, monkeypatch):
    monkeypatch.setitem(HOW, "method", method)
    monkeypatch.setitem(HOW, "format", "int8:g32")
    straight = compress(network, tmp_path / "straight", calibrate=text, **HOW)
    interrupt(network, tmp_path / "out", text, 14, monkeypatch)
    again = compress(network, tmp_path / "out", calibrate=text, **HOW)
    assert again.tensors == straight.tensors
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "out"))
    assert first == second
    expected = logits(network)
    assert np.abs(logits(tmp_path / "out") - expected).mean() < 0.05 * np.abs(expected).mean()
