"""Roundings other than to nearest even, float64 input, and floats that are stored as they are."""

import numpy as np
import pytest
from format_checks import signed_levels

from scrimp.formats import ELEMENTS, encode
from scrimp.formats.catalogue import element
from scrimp.formats.rounding import exact_f32, store_floats, to_integers
from scrimp.formats.scale_types import to_f32

STOCHASTIC = ["fp8_e4m3", "fp6_e2m3", "fp4_e2m1", "posit8_1", "int4", "nf4", "ternary", "binary", "fixed8.4"]


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_rounding_picks_a_neighbour_and_is_right_on_average(name):
    code, rng = element(name).code(), np.random.default_rng(1)
    levels = signed_levels(code)
    points = np.linspace(max(levels[0], -20), min(levels[-1], 20), 241)
    draws = 20_000
    x = np.repeat(points, draws)
    chosen = code.values[code.encode(x, "stochastic", rng.random(x.size))].reshape(241, draws)
    above = np.clip(np.searchsorted(levels, points), 0, levels.size - 1)
    below = np.clip(np.searchsorted(levels, points, "right") - 1, 0, levels.size - 1)
    low, high = levels[below], levels[above]
    assert np.all((chosen == low[:, None]) | (chosen == high[:, None]))
    # a draw is low or high with variance (x - low)(high - x); five standard deviations of the mean of all of them
    bound = 5 * np.sqrt((points - low) * (high - points) / draws)
    assert np.all(np.abs(chosen.mean(axis=1) - points) <= bound + 1e-12)


@pytest.mark.parametrize(
    "name",
    [*STOCHASTIC, "bf16", "f16", "tf32", "int4z:g32", "mxfp4", "nvfp4", "smx6", "vsq4", "q4_k", "q6_k", "kmeans3"],
)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(name):
    w = np.random.default_rng(0).normal(size=(32, 256)).astype(np.float32)
    runs = [encode(w, name, rounding="stochastic", seed=seed).decode() for seed in (7, 7, 8)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_exact_numbers_are_not_rounded_stochastically():
    for name in ("fp8_e4m3", "posit8_0", "int8r"):
        code = element(name).code()
        levels = signed_levels(code)
        assert np.array_equal(code.values[code.encode(levels, "stochastic", np.full(levels.size, 1 - 2**-53))], levels)


def test_halves_away_from_zero_are_found_exactly():
    """0.49999997 + 0.5 is 1 in float32: adding a half and truncating would round it up."""
    x = np.array([0.49999997, -0.49999997, 0.5, -0.5, 1.5, 2.5, -2.5, 8388609.0], np.float32)
    assert to_integers(x, "away").tolist() == [0, 0, 1, -1, 2, 3, -3, 8388609]
    assert to_integers(x, "zero").tolist() == [0, 0, 0, 0, 1, 2, -2, 8388609]


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2", "fp4_e2m1", "fp6_e3m2", "posit8_1", "posit16_2"])
def test_float64_is_rounded_once(name):
    """2^-40 above a tie must go up, though float32 would first round it onto the tie."""
    code = element(name).code()
    ties = code.thresholds[(code.thresholds > 0) & (code.thresholds > code.levels[:-1])]
    x = np.concatenate([ties * (1 + 2.0**-40), ties * (1 - 2.0**-40), ties])
    x = x[x < code.largest]
    assert np.array_equal(encode(x, name).codes().ravel(), code.encode(x))


def test_float64_reaches_bfloat16_and_half_without_a_second_rounding():
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40, 1 + 2.0**-8, 2.0**-140 * (1 + 2.0**-30)])
    assert encode(x, "bf16").decode().tolist()[:3] == [1.0078125, 1, 1]
    assert np.array_equal(encode(x, "bf16").decode(), ELEMENTS["bf16"].code().values[ELEMENTS["bf16"].code().encode(x)])
    y = np.random.default_rng(0).normal(size=100_000)
    y[::2] = y[::2].astype(np.float16) * (1 + 2.0**-11)  # near the ties of half precision
    assert np.array_equal(encode(y, "f16").decode(), y.astype(np.float16))


def test_rounding_to_odd_keeps_what_is_exact_and_never_makes_a_tie():
    x = np.array([1.0, 1 + 2.0**-23, 1 + 2.0**-24, 1 + 2.0**-30, -(1 + 2.0**-30), 1 - 2.0**-40, np.inf, np.nan, 0.0])
    found = exact_f32(x)
    assert found[[0, 1, 6, 8]].tolist() == [1, 1 + 2.0**-23, np.inf, 0]
    assert np.isnan(found[7])
    assert found[2:5].tolist() == [1 + 2.0**-23, 1 + 2.0**-23, -(1 + 2.0**-23)]
    assert found[5] == np.float32(1) - np.float32(2**-24)
    assert exact_f32(np.array([3, -7], np.int64)).tolist() == [3, -7]
    assert exact_f32(np.float16([1.5]))[0] == 1.5


@pytest.mark.parametrize("kind", ["bf16", "f16"])
@pytest.mark.parametrize("rounding", ["even", "away", "zero"])
def test_stored_floats_equal_the_reference(kind, rounding):
    code, rng = ELEMENTS[kind].code(), np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    special = np.float32([0, -0.0, np.inf, -np.inf, 65520, 3.4e38])
    x = np.concatenate([bits, rng.normal(size=100_000).astype(np.float32), special])
    stored = to_f32(store_floats(x, kind, rounding), kind)
    with np.errstate(over="ignore"):
        assert np.array_equal(stored, code.values[code.encode(x, rounding)].astype(np.float32), equal_nan=True)


def test_tf32_keeps_ten_fraction_bits():
    x = np.float32([1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-11 + 2**-23, -(1 + 2**-11), np.inf, 3.4028235e38])
    assert encode(x, "tf32").decode().tolist() == [1 + 2**-10, 1, 1 + 2**-9, 1 + 2**-10, -1, np.inf, np.inf]
    assert encode(x[:4], "tf32", rounding="away").decode().tolist()[1] == 1 + 2**-10
    assert encode(x[:4], "tf32", rounding="zero").decode().tolist() == [1 + 2**-10, 1, 1 + 2**-10, 1]
    gfloat_like = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    step = np.exp2(np.floor(np.log2(np.abs(gfloat_like.astype(np.float64)))) - 10)
    assert np.array_equal(encode(gfloat_like, "tf32").decode(), np.rint(gfloat_like / step) * step)
    assert np.isnan(encode(np.float32([np.nan]), "tf32").decode()[0])
