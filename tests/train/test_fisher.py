"""Gradients at outputs: their moments are the curvature of KL, found by disturbing the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from networks_for_training import network_of, program_of, write_network

from scrimp import models
from scrimp.errors import Refused
from scrimp.quantize import yaqa
from scrimp.sources import open_source
from scrimp.train import fisher
from scrimp.train.executor import Network, run
from scrimp.train.quantized_weight import FixedWeight


@pytest.fixture
def source(tmp_path: Path):
    with open_source(write_network(tmp_path / "network", num_hidden_layers=1)) as source:
        yield source


class Disturbed(FixedWeight):
    """A matrix whose outputs are off by a vector."""

    def __init__(self, dense: np.ndarray, off: torch.Tensor) -> None:
        super().__init__(dense)
        self.off = off

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return super().product(x) + self.off


def divergence(network: Network, token: int, name: str, off: np.ndarray) -> float:
    """KL after one token of the network from the same one whose outputs at ``name`` are ``off``."""

    def logs(matrices) -> torch.Tensor:
        other = Network(network.program, matrices, network.vectors)
        last = len(network.program.ops) - 1
        (found,) = run(other, torch.tensor([[token]]), network.program.ops[last].outputs)
        return found[0, 0].double().log_softmax(-1)

    dense = network.matrices[name].dense().numpy()
    p = logs(network.matrices)
    q = logs({**network.matrices, name: Disturbed(dense, torch.from_numpy(off.astype(np.float32)))})
    return float((p.exp() * (p - q)).sum())


def test_moments_are_the_curvature_of_the_divergence(source, monkeypatch) -> None:
    """A window of one token: nothing is taken as independent, so KL ≈ δᵀ G δ / 2 for every δ."""
    draws, token = 4000, 17
    monkeypatch.setattr(yaqa, "WINDOWS", draws)
    monkeypatch.setattr(fisher, "has_fast_halves", lambda: False)
    _, program = models.build(source.config)
    names = [name for name in program.matrices if ".layers." in name]
    found = fisher.measure(source, names, np.full((draws, 1), token, np.int32), seed=3)
    assert found.keys() == set(names)
    network = network_of(
        program,
        {name: source.read(name).dequantize() for name in program.matrices},
        {name: source.read(name) for name in program.vectors},
    )
    rng = np.random.default_rng(0)
    for name in names:
        moments = found[name].astype(np.float64)
        assert np.array_equal(moments, moments.T)
        values, vectors = np.linalg.eigh(moments)
        off = 0.02 * (vectors[:, -1] + 0.5 * rng.standard_normal(len(values)) / np.sqrt(len(values)))
        told = off @ moments @ off / 2
        both = (divergence(network, token, name, off) + divergence(network, token, name, -off)) / 2
        if values[-1] < 1e-9:  # queries and keys of a single token change nothing
            assert both < 1e-9
        else:
            assert told == pytest.approx(both, rel=0.15), name


def test_the_same_seed_gives_the_same_moments_and_another_does_not(source) -> None:
    windows = np.random.default_rng(0).integers(0, 50, (3, 8)).astype(np.int32)
    name = "model.layers.0.mlp.down_proj.weight"
    first, again, other = (fisher.measure(source, [name], windows, seed=seed)[name] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_matrices_of_too_many_outputs_are_left_out(source, monkeypatch) -> None:
    monkeypatch.setattr(yaqa, "MAX_ROWS", 64)
    names = ["model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"]
    assert list(fisher.measure(source, names, np.zeros((1, 4), np.int32))) == names[1:]


def test_the_head_is_left_out(source) -> None:
    names = ["lm_head.weight", "model.layers.0.mlp.down_proj.weight"]
    assert list(fisher.measure(source, names, np.zeros((1, 4), np.int32))) == names[1:]


def test_logits_that_are_not_finite_are_refused(source, monkeypatch) -> None:
    read = source.read
    huge = 3e38 * np.ones(64, np.float32)
    monkeypatch.setattr(source, "read", lambda name: huge if name == "model.norm.weight" else read(name))
    with pytest.raises(Refused, match="logits are not finite"):
        fisher.measure(source, ["model.layers.0.mlp.down_proj.weight"], np.zeros((1, 4), np.int32))


def test_a_network_that_ends_otherwise_is_refused(source, monkeypatch) -> None:
    program = program_of(source.config)
    cut = program.__class__(**{**{n: getattr(program, n) for n in program.__slots__}, "ops": program.ops[:-1]})
    monkeypatch.setattr(models, "build", lambda config: (None, cut))
    with pytest.raises(Refused, match="without a bias"):
        fisher.measure(source, [], np.zeros((1, 4), np.int32))
    with pytest.raises(Refused, match="The method yaqa can't see") as caught:
        fisher.check(source, "yaqa")
    assert caught.value.hint == "use gptq"
