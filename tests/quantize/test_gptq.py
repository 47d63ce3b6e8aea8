"""GPTQ: less output error than plain rounding, close to the optimum where that can be counted, and every edge."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from layers import FORMATS, assert_same, of_inputs, of_moments, output_error, statistics, weights

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.quantize import gptq, rtn
from scrimp.quantize.grid import levels_for, levels_of
from scrimp.quantize.methods import method
from scrimp.tensors import F32, QTensor, encode


def quantize(weight: F32, name: str, given: Statistics, *, ordered: bool = True) -> QTensor:
    found = gptq.quantize(weight, parse(name), given, ordered=ordered)
    assert not found.notes
    return found.tensor


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_the_output_errs_less_than_after_rounding_to_nearest(name: str, ordered: bool) -> None:
    weight, given, format = weights(40, 144), statistics(144), parse(name)
    plain = rtn.quantize(weight, format) if format.runs and format.recipe is None else encode(weight, format, rule=None)
    ours = quantize(weight, name, given, ordered=ordered)
    assert (ours.format, ours.shape) == (format, weight.shape)
    assert output_error(ours, weight, given.moments) <= output_error(plain, weight, given.moments)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_wins_on_every_random_layer(bits: int, seed: int) -> None:
    weight, given = weights(24, 96, seed), statistics(96, seed + 100)
    plain = rtn.quantize(weight, parse(f"int{bits}:g32"))
    ours = quantize(weight, f"int{bits}:g32", given)
    assert output_error(ours, weight, given.moments) < 0.9 * output_error(plain, weight, given.moments)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_inputs_that_are_independent_leave_plain_rounding(name: str, ordered: bool) -> None:
    weight = weights(20, 72)
    found = quantize(weight, name, of_moments(np.eye(72)), ordered=ordered)
    levels, group = levels_of(found, "gptq"), found.format.group(72)
    scales = np.repeat(found.row_scales().T, group, axis=0)[:72]
    low = None if found.mins is None else np.repeat(found.row_mins().T, group, axis=0)[:72]
    plain = levels.codes(np.ascontiguousarray(weight.T), scales, low).T
    assert (found.codes() == plain).all()


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("cols", [3, 4, 5])
def test_tiny_layers_come_close_to_the_best_codes_there_are(cols: int, ordered: bool) -> None:
    """Every combination of codes is tried, with the same scale."""
    ratios = []
    for seed, bits in product(range(30), (2, 3)):
        weight, given = weights(1, cols, seed), statistics(cols, seed)
        found = quantize(weight, f"int{bits}:row@f32", given, ordered=ordered)
        numbers = np.arange(2**bits) - 2.0 ** (bits - 1)
        every = np.array(list(product(numbers, repeat=cols))) * found.row_scales()[0, 0]
        off = every - weight.astype(np.float64)
        best = np.einsum("nk,kl,nl->n", off, given.moments, off).min()
        ours = output_error(found, weight, given.moments)
        assert ours >= best * (1 - 1e-5)
        ratios.append(ours / best)
    assert np.median(ratios) < 1.1, np.median(ratios)
    assert np.mean(np.array(ratios) < 1.0001) > 0.4


def by_the_book(weight: F32, q: QTensor, moments: np.ndarray) -> np.ndarray:
    """Algorithm 1 of the paper in float64, a loop over columns with H⁻¹, given scales: the values it arrives at."""
    w, cols = weight.astype(np.float64), weight.shape[1]
    damped = moments + gptq.DAMPING * moments.diagonal().mean() * np.eye(cols)
    inverse = np.linalg.inv(damped)
    upper = np.linalg.cholesky(inverse).T
    scales = np.repeat(q.row_scales(), q.format.group(cols), axis=1)[:, :cols].astype(np.float64)
    zero = q.format.element.zero
    values = np.empty(w.shape)
    for k in range(cols):
        values[:, k] = (
            np.clip(np.rint(w[:, k] / scales[:, k]), -zero, q.format.element.levels - 1 - zero) * scales[:, k]
        )
        error = (w[:, k] - values[:, k]) / upper[k, k]
        w[:, k:] -= error[:, None] * upper[k, k:]
    return values


def test_codes_are_those_of_the_papers_algorithm() -> None:
    weight, given = weights(30, 150), statistics(150)
    found = quantize(weight, "int4:g32", given, ordered=False)
    same = np.isclose(by_the_book(weight, found, given.moments), found.dequantize(), atol=1e-7)
    assert same.mean() > 0.99, "float32 may decide a tie otherwise"
    assert same[:, :64].all()


@pytest.mark.parametrize("name", ["int4:g32", "int3z:g32", "nf4:g64", "mxfp4", "ternary", "int4:tensor"])
def test_an_input_that_was_never_active_rounds_plainly_and_moves_no_other(name: str) -> None:
    weight, x = weights(16, 96), np.random.default_rng(0).standard_normal((800, 96)).astype(np.float32)
    x[:, [5, 40, 95]] = 0
    given = of_inputs(x)
    found = quantize(weight, name, given)
    levels, group = levels_of(found, "gptq"), found.format.group(96)
    for k in (5, 40, 95):
        low = None if found.mins is None else found.row_mins()[:, k // group]
        assert (found.codes()[:, k] == levels.codes(weight[:, k].copy(), found.row_scales()[:, k // group], low)).all()
    plain = encode(weight, parse(name), rule="mse" if name != "mxfp4" else None)
    assert output_error(found, weight, given.moments) < output_error(plain, weight, given.moments)
    assert np.isfinite(quantize(weight, name, of_moments(np.zeros((96, 96)))).dequantize()).all()


@pytest.mark.parametrize("tokens", [1, 2, 10])
def test_fewer_tokens_than_inputs_are_enough_to_go_on(tokens: int) -> None:
    weight, given = weights(16, 96), statistics(96, tokens=tokens)
    found = quantize(weight, "int4:g32", given)
    plain = rtn.quantize(weight, parse("int4:g32"))
    assert output_error(found, weight, given.moments) < output_error(plain, weight, given.moments)
    assert np.square(found.dequantize() - weight).sum() < 0.5 * np.square(weight).sum()


def test_moments_that_no_damping_mends_are_said_and_rounded_plainly() -> None:
    weight = weights(8, 64)
    impossible = -1e9 * np.ones((64, 64)) + np.diag(np.full(64, 1e9 + 1.0))
    found = gptq.quantize(weight, parse("int4:g32"), of_moments(impossible))
    assert "no Cholesky factor" in found.notes[0]
    assert "rounded to nearest instead" in found.notes[0]
    error = np.square(found.tensor.dequantize() - weight).sum()
    assert error < 1.1 * np.square(rtn.quantize(weight, parse("int4:g32")).dequantize() - weight).sum()


def test_moments_that_more_damping_mends_are_said() -> None:
    moments = statistics(64).moments
    moments -= 0.05 * moments.diagonal().mean() * np.eye(64)
    found = gptq.quantize(weights(8, 64), parse("int4:g32"), of_moments(moments))
    assert np.isfinite(found.tensor.dequantize()).all()
    assert found.notes[0].startswith("H needed 0.1 of its mean diagonal")


def test_what_is_missing_or_of_another_layer_is_told() -> None:
    weight = weights(4, 64)
    with pytest.raises(UsageError, match="gptq needs statistics"):
        method("gptq")(weight, parse("int4"))
    with pytest.raises(Refused, match="of 32 inputs and the matrix has 64"):
        method("gptq")(weight, parse("int4"), statistics(32))
    broken = statistics(64).moments
    broken[3, 3] = np.nan
    with pytest.raises(Refused, match="NaN"):
        method("gptq")(weight, parse("int4"), of_moments(broken))


@pytest.mark.parametrize("name", ["gptq", "hqq", "gptq+descent"])
def test_weights_with_nan_are_refused(name: str) -> None:
    weight = weights(4, 64)
    weight[2, 5] = np.nan
    with pytest.raises(Refused, match="1 of 256 weights are NaN or infinite"):
        method(name)(weight, parse("int4"), statistics(64))


@pytest.mark.parametrize("name", ["int4:g32", "int3z:row", "nf4:g64", "ternary", "mxfp4"])
def test_scale_and_order_of_rows_and_units_of_the_inputs_change_nothing(name: str) -> None:
    weight, given = weights(48, 96), statistics(96)
    found = quantize(weight, name, given)
    assert_same(found, quantize(weight, name, given))
    assert_same(found, quantize(weight, name, of_moments(given.moments * 1024.0)))
    assert (quantize(weight * 4, name, given).codes() == found.codes()).all()
    order = np.random.default_rng(1).permutation(48)
    turned = quantize(weight[order], name, given)
    assert (turned.codes() == found.codes()[order]).mean() > 0.995, "matrix products may sum rows in another order"


def test_every_group_is_complete_when_its_scale_is_chosen() -> None:
    """Groups of 64 span four leaves of the recursion: the scale must see feedback of all inputs before the group."""
    weight, given = weights(12, 192), statistics(192)
    found = quantize(weight, "int3:g64@f32", given, ordered=False)
    factor, _ = gptq.factorize(given.moments)
    assert factor is not None
    missed = weight[:, :64].astype(np.float64) - found.dequantize()[:, :64]
    target = weight[:, 64:128] + missed @ (factor / factor.diagonal())[:64, 64:128]
    levels = levels_for(weight, found.format, "gptq")
    scales, _ = gptq.choose(
        target.T.astype(np.float32), levels, np.square(factor.diagonal()[64:128]).astype(np.float32)
    )
    np.testing.assert_allclose(found.row_scales()[:, 1], scales, rtol=1e-3)
