"""One step for a matrix, at a rate in coded bits: the rate is met, the error is less than a grouped format's at the
same bytes, and what is scaled or weighed follows from the moments."""

from __future__ import annotations

import numpy as np
import pytest

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.formats.contexts import coded_bits
from scrimp.quantize import ecsq
from scrimp.quantize.fold import Group
from scrimp.quantize.methods import method
from scrimp.quantize.objective import row_errors

ROWS = parse("int8:row")
N, K = 192, 256


def statistics_of(x: np.ndarray, **more: object) -> Statistics:
    x = x.astype(np.float32)
    moments = x.astype(np.float64).T @ x
    return Statistics(len(x), moments, x.mean(0), np.abs(x).mean(0), np.abs(x).max(0), sample=x, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(7)
    mix = rng.normal(size=(K, K)) * np.exp(rng.normal(size=K))[:, None] / np.sqrt(K)
    x = rng.normal(size=(1024, K)) @ mix
    return rng.normal(size=(N, K)).astype(np.float32), statistics_of(x)


def error(weight, tensor, statistics) -> float:
    return float(row_errors(weight - tensor.dequantize().astype(np.float64), statistics.moments).sum())


@pytest.mark.parametrize("bits", [1.5, 2.5, 3.25, 5.0])
def test_the_rate_is_what_the_coder_counts(case, bits):
    weight, statistics = case
    tensor = ecsq.quantize(weight, ROWS, statistics, bits=bits).tensor
    assert abs(coded_bits(tensor.codes(), 256) / weight.size - bits) <= ecsq.TOLERANCE


def test_more_bits_err_less(case):
    weight, statistics = case
    errors = [
        error(weight, ecsq.quantize(weight, ROWS, statistics, bits=b).tensor, statistics) for b in (1, 2, 3, 4, 5)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("grouped", "bits"), [("int3:g64", 3.25), ("int4:g64", 4.25), ("int2:g32", 2.5)])
def test_at_the_bytes_of_a_grouped_format_it_errs_less(case, grouped, bits):
    weight, statistics = case
    there = method("gptq")(weight, parse(grouped), statistics)
    here = ecsq.quantize(weight, ROWS, statistics, bits=bits - 16 / K).tensor
    assert error(weight, here, statistics) < 0.75 * error(weight, there, statistics)


def test_the_predicted_error_is_what_feedback_leaves(case):
    """The survey's formula: the miss of plain rounding per weight, times Σ R_kk²."""
    weight, statistics = case
    levels, aim = ecsq.levels_of_rows(weight, ROWS), ecsq.objective(weight, statistics)
    for step in (0.3, 0.6):
        _, missed = ecsq.rate(weight, levels, step * aim.relative, np.arange(N))
        scales = ecsq.steps(weight, levels, step * aim.relative)
        tensor = ecsq.rounded(weight, levels, aim.factor, scales)
        found = aim.errors(weight - tensor.dequantize()).sum()
        assert 0.85 < N * missed * step**2 * aim.pivots / found < 1.15


def test_body_rows_share_a_step_and_rows_of_a_head_do_not(case):
    weight, statistics = case
    body = ecsq.quantize(weight, ROWS, statistics, bits=3).tensor.row_scales()
    assert np.unique(body).size == 1
    inputs = np.random.default_rng(3).normal(size=(64, K)).astype(np.float32) / 16
    inputs[:, 0] = 4.0
    logits = inputs.astype(np.float64) @ weight.T
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    costs = (chances * (1 - chances)).mean(axis=0)
    expected = np.maximum(costs, ecsq.FLOOR * costs.mean()) ** -ecsq.POWER
    scales = ecsq.quantize(weight, ROWS, statistics_of(inputs, logits=True), bits=3).tensor.row_scales().ravel()
    ratio = scales / expected
    free = scales > 1.02 * np.abs(weight).max(axis=1) / ecsq.REACH  # not held up by its largest weight
    assert free.mean() > 0.8
    assert scales.max() > 2 * scales.min()
    np.testing.assert_allclose(ratio[free], np.median(ratio[free]), rtol=2e-3)  # as float16


def test_no_weight_saturates_for_a_row_whose_step_is_fine(case):
    weight, statistics = case
    outlier = weight.copy()
    outlier[3, 5] = 60.0
    tensor = ecsq.quantize(outlier, ROWS, statistics, bits=4).tensor
    assert np.abs(tensor.codes().astype(int) - 128).max() < 127
    assert abs(tensor.dequantize()[3, 5] - 60.0) < 1.0


def test_without_statistics_errors_count_alike(case):
    weight, _ = case
    tensor = ecsq.quantize(weight, ROWS, None, bits=3).tensor
    plain = np.square(weight - tensor.dequantize()).mean()
    assert plain < float(tensor.row_scales()[0, 0]) ** 2 / 12 * 1.05  # a uniform quantizer's noise


@pytest.mark.parametrize("name", ["int4:g64", "int8:tensor", "int8z:g64", "nf4:g64", "ternary", "bf16"])
def test_formats_without_one_step_per_row_are_refused(case, name):
    with pytest.raises(UsageError, match="ecsq"):
        ecsq.quantize(*case[:1], parse(name), case[1], bits=3)


@pytest.mark.parametrize(
    "name", ["ecsq", "ecsq:", "ecsq:x", "ecsq:nan", "ecsq:0.1", "ecsq:9", "ecsq:3+nothing", "ecsq:-3"]
)
def test_rates_that_mean_nothing_are_no_methods(name):
    with pytest.raises(UsageError, match="no known method"):
        method(name)


def test_a_refit_goes_behind(case):
    weight, statistics = case
    plain, refitted = (method(name)(weight, ROWS, statistics) for name in ("ecsq:3", "ecsq:3+refit"))
    assert error(weight, refitted, statistics) <= error(weight, plain, statistics)


def test_waterfill_takes_the_square_root_of_the_pivots(case):
    _, statistics = case
    group = Group(("w",), K, vectors=("norm",))
    weight = np.random.default_rng(1).normal(size=(N, K)).astype(np.float32)
    s = ecsq.waterfill(group, {"w": weight}, statistics, {"w": ROWS}, {}).s
    factor = ecsq.factored(statistics.moments)
    expected = np.empty(K)
    expected[factor.order] = factor.pivots**0.25
    inside = (s > 1.01 / ecsq.FURTHEST) & (s < 0.99 * ecsq.FURTHEST)
    ratio = (s / expected)[inside]
    assert inside.mean() > 0.9
    assert ratio.max() / ratio.min() < 1 + 1e-5


def test_waterfill_leaves_outliers_where_they_are(case):
    _, statistics = case
    group = Group(("w",), K, vectors=("norm",))
    weight = np.random.default_rng(1).normal(size=(N, K)).astype(np.float32)
    weight[:, 9] *= 300
    s = ecsq.waterfill(group, {"w": weight}, statistics, {"w": ROWS}, {}).s
    scaled = weight * s
    assert np.abs(scaled).max() <= 1.5 * ecsq.LARGEST * np.sqrt(np.square(scaled).mean())


def test_waterfill_errs_less_at_the_same_rate(case):
    weight, statistics = case
    group = Group(("w",), K, vectors=("norm",))
    s = ecsq.waterfill(group, {"w": weight}, statistics, {"w": ROWS}, {}).s
    wide = s.astype(np.float64)
    turned = Statistics(statistics.count, statistics.moments / wide[:, None] / wide, *[statistics.mean] * 3)
    plain = error(weight, ecsq.quantize(weight, ROWS, statistics, bits=3).tensor, statistics)
    scaled = ecsq.quantize((weight * s).astype(np.float32), ROWS, turned, bits=3).tensor
    assert error((weight * s).astype(np.float32), scaled, turned) < plain
