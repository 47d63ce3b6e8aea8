"""What every scalar code must satisfy. Each check is a function of the encoder, so that mutants can be shown to it."""

from __future__ import annotations

import hashlib

import numpy as np

from scrimp.formats.code import Code

#: sha256[:16] of the numbers of all codes, float64 little-endian, in code order, every NaN 0x7ff8000000000000. Computed
#: from ml_dtypes, gfloat and softposit, none of which is needed to check them.
GOLDEN = {
    "fp8_e4m3": "98959cdf4be234fd", "fp8_e5m2": "0ebeb4cd681ba45c", "fp8_e4m3_ieee": "7f62eb713ead2676",
    "fp8_e3m4": "46b25061b2275ab3", "fp8_e4m3_fnuz": "10ad41a5ddbd0da6", "fp8_e5m2_fnuz": "0480d2f04b2d4dad",
    "fp8_e4m3b11_fnuz": "7278e386589420fc", "e8m0": "a3dfaeaa54eb87b7", "fp6_e2m3": "2cad943ffd993823",
    "fp6_e3m2": "fe6ecfe7e41d29e0", "fp4_e2m1": "bafb8c3b8a81bdda", "bf16": "6a00f29e7303e153",
    "f16": "ecc18b9b372011f0", "fixed8.6": "d41df24a10bbd304", "k8p3se": "9b9e527d92e30f98",
    "k8p4se": "d8167be706783d21", "k8p5se": "762045239711aea4", "k8p5sf": "a63c824d6c31476e",
    "k8p4sf": "10ad41a5ddbd0da6", "k8p3sf": "0480d2f04b2d4dad", "posit8_0": "4c679f3de24e80a1",
    "posit8_1": "36dde3680d13afe4", "posit8_2": "d21ad6ec84ed8d0c", "posit16_1": "2dc52e49b195fc2c",
    "posit16_2": "0e68714c4fdffefa",
}  # fmt: skip


def digest(values):
    bits = np.asarray(values, "<f8").copy().view("<u8")
    bits[np.isnan(values)] = 0x7FF8000000000000
    return hashlib.sha256(bits.tobytes()).hexdigest()[:16]


def signed_levels(code: Code):
    """All finite numbers of a code, ascending, once each."""
    return np.unique(code.values[np.isfinite(code.values)])


def float32_neighbours(x):
    """Every number as float32, and the float32 on each side of it."""
    with np.errstate(over="ignore"):
        single = np.asarray(x, np.float64).astype(np.float32)
    infinity = np.float32(np.inf)
    return np.concatenate([np.nextafter(single, -infinity), single, np.nextafter(single, infinity)])


def check_golden(values, name):
    assert digest(values) == GOLDEN[name], f"{name} means other numbers"


def check_numbers_come_back(code: Code, encode):
    """encode(decode(c)) means what c meant; the same code, except for a second zero or NaN."""
    codes = np.arange(code.values.size)
    numbers = codes[~np.isnan(code.values)]
    if code.beyond is None:  # a saturating code has no way to write its infinities
        numbers = numbers[np.isfinite(code.values[numbers])]
    back = encode(code.values[numbers])
    same = code.values[numbers] != 0
    assert np.array_equal(back[same], numbers[same])
    assert np.array_equal(code.values[back], code.values[numbers])
    if code.negative_zero:
        assert np.array_equal(back[~same], numbers[~same])
    if code.nan is not None:
        assert np.isnan(code.values[encode(np.array([np.nan]))]).all()


def check_nearest(code: Code, encode, *, metric=lambda x: x, count=10_000):
    """No other number is nearer, by brute force over all of them."""
    levels = signed_levels(code)
    rng = np.random.default_rng(0)
    spread = rng.uniform(-1.2, 1.2, count) * levels[-1]
    small = levels[rng.integers(0, levels.size, count)] * rng.uniform(0.5, 1.5, count)
    with np.errstate(over="ignore"):
        x = np.concatenate([spread, small]).astype(np.float32).astype(np.float64)
    if code.negatives == "nan":
        x = np.abs(x[x != 0])
    x = np.clip(x, levels[0], levels[-1])  # beyond the ends the overflow policy decides
    chosen = code.values[encode(x)]
    at = np.clip(np.searchsorted(levels, x), 1, levels.size - 1)
    best = np.minimum(np.abs(metric(x) - metric(levels[at - 1])), np.abs(metric(x) - metric(levels[at])))
    assert np.all(np.abs(metric(x) - metric(chosen)) <= best)


def check_ties(code: Code, encode):
    """On a threshold the even code; the float32 numbers next to it go to their own sides."""
    for sign in (1, -1) if code.mirror != "none" else (1,):
        single = code.thresholds.astype(np.float32)
        exact = (single == code.thresholds) & (code.thresholds != 0)
        at, low = single[exact], np.flatnonzero(exact)
        want = np.where(code.even[low], low, low + 1)
        expected = code.levels[want]
        assert np.array_equal(code.values[encode(sign * at)], sign * expected), "a tie went to the odd code"
        below, above = np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))
        assert np.array_equal(code.values[encode(sign * below)], sign * code.levels[low]), "below a threshold"
        assert np.array_equal(code.values[encode(sign * above)], sign * code.levels[low + 1]), "above a threshold"


def check_monotone(code: Code, encode):
    """Larger numbers never get smaller ones; what is represented is kept; zero is zero."""
    levels = signed_levels(code)
    x = np.sort(np.concatenate([levels, float32_neighbours(levels), np.linspace(levels[0], levels[-1], 20_001)]))
    if code.negatives == "nan":
        x = x[x > 0]
    chosen = code.values[encode(x)]
    finite = np.isfinite(chosen)
    assert np.all(np.diff(chosen[finite]) >= 0)
    assert np.array_equal(code.values[encode(chosen[finite])], chosen[finite])
    if (levels == 0).any():
        assert code.values[encode(np.zeros(1))] == 0


def check_symmetric(code: Code, encode):
    levels = signed_levels(code)
    rng = np.random.default_rng(1)
    with np.errstate(over="ignore"):
        x = np.concatenate([float32_neighbours(levels), rng.normal(size=20_000) * levels[-1] / 3]).astype(np.float32)
    assert np.array_equal(code.values[encode(-x)], -code.values[encode(x)], equal_nan=True)
