"""What one matrix costs, measured from its block on: bit for bit what running the whole network gives."""

from __future__ import annotations

import numpy as np
import pytest
from tests.calibrate.networks import write_network

from scrimp import _core, models
from scrimp.engine import Engine
from scrimp.model import read_tensors
from scrimp.quantize import rtn
from scrimp.quantize.sensitivity import PROBE, Probe, sensitivities, squared_error
from scrimp.sources import open_source

WINDOWS = np.random.default_rng(1).integers(0, 50, (2, 32)).astype(np.int32)


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def source(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sensitivity") / "network"
    with open_source(write_network(directory, tie_word_embeddings=request.param)) as opened:
        yield opened


def whole_network(source, changed):
    """The mean divergence of all logits, each from a run of every operation."""
    _, program = models.build(source.config)
    matrices, vectors, _ = read_tensors(source, program.matrices, program.vectors)
    total = 0.0
    for window in WINDOWS:
        original, other = (
            Engine(program, matrices | exchanged, vectors, context=32, threads=1, isa="scalar", arithmetic="f32")
            .forward(window, 0, all_logits=True)
            for exchanged in ({}, changed)
        )  # fmt: skip
        found = _core.score(other, np.zeros(32, np.int32), original, threads=1, isa="scalar")
        total += float(np.mean(found["kl"]))
    return total / len(WINDOWS)


@pytest.fixture
def scalar(monkeypatch):
    monkeypatch.setenv("SCRIMP_ISA", "scalar")


def test_every_matrix_alone_in_any_order(source, scalar):
    probe = Probe(source, WINDOWS)
    names = [*probe.matrices, *reversed(probe.matrices)]
    for name in names:
        rounded = {name: rtn.quantize(probe.matrices[name].dequantize(), PROBE)}
        assert probe.divergence(rounded) == whole_network(source, rounded), name


def test_several_matrices_together(source, scalar):
    probe = Probe(source, WINDOWS)
    for names in (list(probe.matrices), [n for n in probe.matrices if "down" in n], []):
        rounded = {name: rtn.quantize(probe.matrices[name].dequantize(), PROBE) for name in names}
        assert probe.divergence(rounded) == whole_network(source, rounded), names


def test_sensitivity_is_the_divergence_over_the_squared_error(source, scalar):
    probe = Probe(source, WINDOWS)
    found = sensitivities(probe)
    assert found.keys() == probe.matrices.keys()
    for name in probe.matrices:
        if name.startswith("model.layers"):
            weight = probe.matrices[name].dequantize()
            rounded = rtn.quantize(weight, PROBE)
            exact = whole_network(source, {name: rounded}) / squared_error(weight, rounded.dequantize())
            assert found[name] == pytest.approx(exact, rel=1e-6)


def test_only_what_comes_after_a_matrix_runs(source, monkeypatch):
    probe, ran = Probe(source, WINDOWS), []
    whole = len(models.build(source.config)[1].ops)
    original = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, tokens, start, first, last, **more: (
        ran.append(last - first), original(self, tokens, start, first, last, **more))[1])  # fmt: skip
    names = [f"model.layers.{i}.{part}.weight" for i in range(3) for part in ("self_attn.q_proj", "mlp.up_proj")]
    counts = []
    for name in names:
        ran.clear()
        probe.divergence({name: rtn.quantize(probe.matrices[name].dequantize(), PROBE)})
        counts.append(sum(ran) / len(WINDOWS))
    assert counts[0] == whole
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < whole / 2
