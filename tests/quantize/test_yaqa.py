"""YAQA: less of its own objective than GPTQ, GPTQ where rows have nothing to do with each other, and every edge."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from layers import FORMATS, assert_same, statistics, weights

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.quantize import gptq, yaqa
from scrimp.quantize.methods import method
from scrimp.tensors import F32, QTensor


def layer(rows: int, cols: int, seed: int = 0) -> tuple[F32, Statistics]:
    """Weights, and statistics with gradients of outputs that are correlated and unequally important."""
    outputs = statistics(rows, seed + 7, tokens=4 * rows).moments / (4 * rows)
    return weights(rows, cols, seed), replace(statistics(cols, seed + 100), fisher=outputs.astype(np.float32))


def cost(q: QTensor, weight: F32, given: Statistics, fisher: np.ndarray | None = None) -> float:
    """``tr(G E H Eᵀ)``."""
    assert given.fisher is not None
    error = weight - q.dequantize().astype(np.float64)
    return float(np.sum(((given.fisher if fisher is None else fisher) @ error) * (error @ given.moments)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_network_is_said_to_lose_less_than_after_gptq(name: str) -> None:
    weight, given = layer(40, 144)
    ours, plain = (run.quantize(weight, parse(name), given) for run in (yaqa, gptq))
    assert (ours.tensor.format, ours.tensor.shape, ours.notes) == (parse(name), weight.shape, ())
    assert cost(ours.tensor, weight, given) <= 1.02 * cost(plain.tensor, weight, given)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_wins_on_every_random_layer(bits: int, seed: int) -> None:
    weight, given = layer(48, 96, seed)
    ours, plain = (run.quantize(weight, parse(f"int{bits}:g32"), given).tensor for run in (yaqa, gptq))
    assert cost(ours, weight, given) < 0.8 * cost(plain, weight, given)


@pytest.mark.parametrize("name", ["int3:g32", "int2z:g32", "nf4", "ternary:g64@bf16", "int4:tensor", "mxfp4"])
def test_rows_without_anything_to_do_with_each_other_leave_gptq(name: str) -> None:
    weight, given = layer(21, 70)
    diagonal = np.diag(np.random.default_rng(1).uniform(0.1, 10, 21)).astype(np.float32)
    found = yaqa.quantize(weight, parse(name), replace(given, fisher=diagonal))
    assert_same(found.tensor, gptq.quantize(weight, parse(name), given).tensor)


def test_tiny_layers_come_close_to_the_best_codes_there_are() -> None:
    """Every combination of codes is tried, with the same scales; the objective is the one that was drawn to its
    diagonal, without damping."""
    ratios, of_gptq = [], []
    for seed in range(40):
        weight, given = layer(2, 3, seed)
        assert given.fisher is not None
        found = yaqa.quantize(weight, parse("int2:row@f32"), given).tensor
        fisher, scales = yaqa.shrunk(given.fisher, 2), found.row_scales()
        numbers = range(-2, 2)
        best = np.inf
        for codes in product(numbers, repeat=6):
            error = weight - np.reshape(codes, (2, 3)) * scales
            best = min(best, float(np.sum((fisher @ error) * (error @ given.moments))))
        ratios.append(cost(found, weight, given, fisher) / best)
        plain = gptq.quantize(weight, parse("int2:row@f32"), given).tensor
        of_gptq.append(cost(plain, weight, given, fisher) / best)
    assert min(ratios) >= 1 - 1e-6
    assert np.median(ratios) < 1.1
    assert np.mean(np.log(ratios)) < 0.9 * np.mean(np.log(of_gptq))


def test_without_gradients_it_is_gptq_and_says_so() -> None:
    weight, given = layer(8, 32)
    found = yaqa.quantize(weight, parse("int3:g32"), replace(given, fisher=None))
    assert_same(found.tensor, gptq.quantize(weight, parse("int3:g32"), given).tensor)
    assert "rounded as gptq" in found.notes[-1]


def test_a_row_that_nothing_listens_to_is_still_rounded() -> None:
    weight, given = layer(9, 32)
    assert given.fisher is not None
    fisher = given.fisher.copy()
    fisher[3], fisher[:, 3] = 0, 0
    found = yaqa.quantize(weight, parse("int3:g32"), replace(given, fisher=fisher)).tensor
    assert np.abs(found.dequantize()[3] - weight[3]).max() <= 2 * found.row_scales()[3].max()


@pytest.mark.parametrize(
    ("fisher", "says"),
    [(np.eye(7, dtype=np.float32), "another layer"), (np.full((8, 8), np.nan, np.float32), "NaN")],
)
def test_gradients_that_do_not_fit_are_refused(fisher: F32, says: str) -> None:
    weight, given = layer(8, 32)
    with pytest.raises(Refused, match=r"gradients (are|hold)") as caught:
        yaqa.quantize(weight, parse("int3:g32"), replace(given, fisher=fisher))
    assert says in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["awq+yaqa", "quip+yaqa", "lowrank:8+yaqa", "yaqa+refit"])
def test_it_stands_alone(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        method(name)
    assert caught.value.hint == "yaqa stands alone: --method yaqa"
