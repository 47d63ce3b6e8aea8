"""Refit and descent: no row ever errs more, and small cases reach the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import FORMATS, assert_same, of_inputs, of_moments, output_error, statistics, weights

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import parse
from scrimp.quantize import descent, gptq, refit, rtn, swap
from scrimp.quantize.grid import levels_of, parts_of
from scrimp.quantize.methods import Refine, method
from scrimp.quantize.objective import row_errors
from scrimp.tensors import F32, QTensor, encode, encode_weight

REFINEMENTS = (refit.refine, descent.refine, swap.refine)


def errors(q: QTensor, weight: F32, given: Statistics) -> np.ndarray:
    return row_errors(weight - q.dequantize().astype(np.float64), given.moments)


def never_more(q: QTensor, weight: F32, statistics: Statistics, refine: Refine) -> QTensor:
    better = refine(q, weight, statistics)
    assert (better.format, better.shape) == (q.format, q.shape)
    before, after = errors(q, weight, statistics), errors(better, weight, statistics)
    assert after.sum() <= before.sum()
    if q.format.block != "tensor":
        assert (after <= before).all()
    return better


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("name", FORMATS)
def test_no_row_errs_more_than_before(name: str, refine: Refine) -> None:
    weight, stats = weights(20, 136), statistics(136)
    never_more(encode(weight, name), weight, stats, refine)
    never_more(gptq.quantize(weight, parse(name), stats).tensor, weight, stats, refine)


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 70), st.integers(1, 80), st.sampled_from(FORMATS),
       st.sampled_from(REFINEMENTS), st.floats(-6, 3))  # fmt: skip
def test_it_never_hurts(seed: int, rows: int, cols: int, tokens: int, name: str, refine: Refine, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((tokens, cols)) * rng.integers(0, 2, cols) * 10.0**size).astype(np.float32)
    weight = rng.standard_normal((rows, cols)).astype(np.float32) * rng.choice([0, 1e-6, 1.0, 100], (rows, 1))
    weight = weight.astype(np.float32)
    never_more(encode_weight(weight, parse(name)), weight, of_inputs(x), refine)


@pytest.mark.parametrize("has_min", [False, True])
def test_the_scales_are_the_least_squares_optimum_where_they_are_stored_precisely(has_min: bool) -> None:
    weight, given = weights(4, 96), statistics(96)
    q = rtn.quantize(weight, parse(f"int4{'z' if has_min else ''}:g32@f32"))
    refined = refit.refine(q, weight, given)
    root = np.linalg.cholesky(given.moments).T
    for row in range(4):
        basis = np.zeros((3 * (1 + has_min), 96))
        for g in range(3):
            at = slice(32 * g, 32 * g + 32)
            basis[g, at] = q.codes()[row, at] - (0.0 if has_min else 8.0)
            if has_min:
                basis[3 + g, at] = 1
        best = np.linalg.lstsq(root @ basis.T, root @ weight[row].astype(np.float64), rcond=None)[0]
        np.testing.assert_allclose(refined.row_scales()[row], best[:3], rtol=1e-3)
        off = weight[row] - best @ basis
        assert errors(refined, weight, given)[row] <= off @ given.moments @ off * (1 + 1e-4)
    assert (refined.codes() == q.codes()).all()


def test_codes_that_all_mean_zero_keep_their_scale() -> None:
    weight = weights(8, 64)
    weight[3, :32] = 0
    q = rtn.quantize(weight, parse("int4:g32"))
    assert (refit.refine(q, weight, statistics(64)).row_scales()[3, 0] == q.row_scales()[3, 0]).all()
    zeros = rtn.quantize(np.zeros((8, 64), np.float32), parse("int4:g32"))
    for refine in REFINEMENTS:
        assert_same(zeros, refine(zeros, np.zeros((8, 64), np.float32), statistics(64)))


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_silent_layers_leave_everything_as_it_was(refine: Refine) -> None:
    weight = weights(8, 64)
    q = rtn.quantize(weight, parse("int4:g32"))
    assert_same(q, refine(q, weight, of_moments(np.zeros((64, 64)))))


@pytest.mark.parametrize("name", ["int2:g32", "int3:g64", "int4z:g64", "nf4:g64", "ternary", "nvfp4", "int3:tensor"])
def test_each_step_helps_where_inputs_are_correlated(name: str) -> None:
    weight, stats, format = weights(32, 192), statistics(192), parse(name)
    start = gptq.quantize(weight, format, stats).tensor
    refitted, descended = refit.refine(start, weight, stats), descent.refine(start, weight, stats)
    first, second, third = (output_error(q, weight, stats.moments) for q in (start, refitted, descended))
    assert third < second < first


def test_where_descent_ends_no_single_code_can_be_improved() -> None:
    """With scales held fixed."""
    weight, moments = weights(6, 40), statistics(40).moments
    q = rtn.quantize(weight, parse("int3:row@f32"))
    levels = levels_of(q, "descent")
    parts = parts_of(q, levels)
    for _ in range(40):
        parts = replace(parts, codes=descent._visit(parts, weight, moments, levels))
    settled = levels.tensor(parts.codes, parts.scales)
    base, values = row_errors(weight - settled.dequantize().astype(np.float64), moments), settled.dequantize()
    for k, step in product(range(40), (-1, 1)):
        moved, code = values.copy(), settled.codes()[:, k].astype(int) + step
        moved[:, k] += step * settled.row_scales()[:, 0]
        allowed = (code >= 0) & (code < 8)
        assert (row_errors(weight - moved, moments)[allowed] > base[allowed] * (1 - 1e-4)).all()


def test_refined_methods_are_spelled_with_a_plus() -> None:
    weight, stats, format = weights(8, 64), statistics(64), parse("int3:g32")
    assert_same(method("rtn+refit")(weight, format, stats), refit.refine(rtn.quantize(weight, format), weight, stats))
    assert method("gptq+descent").calibrated
    assert method("rtn+refit").calibrated
    assert not method("rtn").calibrated
