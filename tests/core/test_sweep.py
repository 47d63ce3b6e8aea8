"""Rounding with feedback, and the sums that choose scales, on every instruction set.

Codes are checked without another implementation of the same loop: what the core says an input missed is put into the
formula in float64, and the code must be the nearest to what comes out. u = 2^-24; gamma(n) bounds n roundings.
"""

from itertools import pairwise

import numpy as np
import pytest

from scrimp import _core
from scrimp.formats import parse
from scrimp.quantize.grid import levels_for
from scrimp.quantize.nearest import rounding_of, weighted_sums

UNIT = 2.0**-24
FORMATS = ["int2:row@f32", "int4:row@f32", "int8:row@f32", "int3z:row@f32", "ternary:row@f32", "binary:row@f32",
           "nf4:row@f32", "fp8_e4m3:row@f32", "posit8_1:row@f32", "kmeans2:row@f32", "kmeans3:row@f32"]  # fmt: skip


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


def problem(name, rows, cols, seed=0):
    """Weights, Levels, feedback with ones on its diagonal, a scale and a low for each row."""
    rng = np.random.default_rng([seed, rows, cols])
    weight = rng.standard_normal((rows, cols)).astype(np.float32)
    levels = levels_for(weight, parse(name), "tests")
    numbers = levels.numbers(np.arange(levels.format.element.levels, dtype=np.uint16))
    scale = rng.uniform(1.0, 2.0, rows).astype(np.float32) / np.float32(np.abs(numbers[np.isfinite(numbers)]).max())
    low = rng.uniform(-2, -1, rows).astype(np.float32) if levels.format.has_min else None
    feedback = np.tril(rng.normal(0, cols**-0.5, (cols, cols)), -1).astype(np.float32) + np.eye(cols, dtype=np.float32)
    return weight, levels, feedback, scale * (2 if low is not None else 1), low


def swept(weight, levels, feedback, scale, low, isa, pieces):
    """Codes and misses ``(K, N)``; inputs are rounded in pieces."""
    (rows, cols), side = weight.shape, _core.STRIP_ROWS
    strips = -(-rows // side)
    padded = np.zeros((strips * side, cols), np.float32)
    padded[:rows] = weight
    weights = np.ascontiguousarray(padded.reshape(strips, side, cols).transpose(0, 2, 1))
    wide = [None if x is None else np.resize(x, (1, strips * side)).astype(np.float32) for x in (scale, low)]
    codes, group = np.zeros(weights.shape, np.uint16), np.zeros(cols, np.int32)
    edges = np.linspace(0, cols, pieces + 1).astype(int)
    for begin, end in pairwise(edges):
        _core.sweep(rounding_of(levels), weights, feedback, group, wide[0], wide[0], wide[1], codes, int(begin),
                    int(end), 0, strips, isa)  # fmt: skip
    return [x.transpose(1, 0, 2).reshape(cols, -1)[:, :rows] for x in (codes, weights)]


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 23), (33, 24), (32, 25), (40, 150)])
@pytest.mark.parametrize("name", FORMATS)
def test_every_code_is_the_nearest_to_the_weight_with_its_feedback(name, rows, cols, isa):
    weight, levels, feedback, scale, low = given = problem(name, rows, cols)
    codes, missed = swept(*given, isa, pieces=1)
    values = levels.values(codes.astype(np.uint8), scale, low)
    assert np.array_equal(missed, weight.T - values)
    past = np.tril(feedback, -1).astype(np.float64)
    target = weight.T + past @ missed
    bound = gamma(cols + 3) * (np.abs(weight.T) + np.abs(past) @ np.abs(missed) + (0 if low is None else np.abs(low)))
    every = np.unique(levels.numbers(np.arange(levels.format.element.levels, dtype=np.uint16)))
    every = every[np.isfinite(every), None, None] * scale.astype(np.float64) + (0.0 if low is None else low)
    lower, upper = (levels.codes((target + sign * bound).astype(np.float32), scale, low) for sign in (-1, 1))
    between = (levels.values(lower, scale, low) <= values) & (values <= levels.values(upper, scale, low))
    assert between.all()
    if levels.format.element.name != "posit8_1":  # rounds to the nearest by its own rule, not by distance
        assert (np.abs(target - values) <= np.abs(target - every).min(axis=0) + 2 * bound + 4 * UNIT).all()


@pytest.mark.parametrize("name", ["int3:row@f32", "nf4:row@f32"])
def test_rounding_in_pieces_and_strips_alone_change_no_bit(name, isa):
    given = problem(name, 70, 96)
    codes, missed = swept(*given, isa, pieces=1)
    for pieces in (2, 4):  # edges at multiples of 24, where a sum of feedback begins anew
        again = swept(*given, isa, pieces=pieces)
        assert np.array_equal(codes, again[0])
        assert np.array_equal(missed, again[1])
    weight, levels, feedback, scale, _ = given
    alone = swept(weight[32:64], levels, feedback, scale[32:64], None, isa, pieces=1)
    assert np.array_equal(codes[:, 32:64], alone[0])


@pytest.mark.parametrize(("inputs", "blocks"), [(1, 1), (7, 3), (64, 16), (64, 70), (33, 129)])
@pytest.mark.parametrize("name", FORMATS)
def test_sums_are_those_of_numpy(name, inputs, blocks, isa, monkeypatch):
    monkeypatch.setenv("SCRIMP_ISA", isa)
    weight, levels, _, scale, low = problem(name, blocks, inputs)
    w, h = np.ascontiguousarray(weight.T), np.random.default_rng(1).uniform(0, 1, inputs).astype(np.float32)
    found = weighted_sums(w, levels, h, scale, low)
    codes = levels.codes(w, scale, low)
    q, wide = levels.numbers(codes).astype(np.float64), h.astype(np.float64)
    off = levels.values(codes, scale, low).astype(np.float64) - w
    terms = np.stack([off * off, q, q * q, q * w])
    exact, size = (np.einsum("k,ikm->im", wide, x) for x in (terms, np.abs(terms)))
    assert (np.abs(found - exact) <= gamma(inputs + 5) * size + 1e-30).all()


def test_every_bound_of_a_table_is_where_its_codes_change():
    """Each float32 beside a bound, and both zeros, get the code that formats/rounding.py gives them."""
    weight = np.random.default_rng(2).standard_normal((1, 64)).astype(np.float32)  # kmeans learns its levels from it
    for name in ("nf4:row@f32", "fp8_e4m3:row@f32", "posit8_1:row@f32", "mxfp4", "binary:row@f32", "kmeans3:row@f32"):
        levels = levels_for(weight, parse(name), "tests")
        numbers = np.sort(levels.numbers(np.arange(levels.format.element.levels, dtype=np.uint16)))
        numbers = numbers[np.isfinite(numbers)].astype(np.float32)
        middles = ((numbers[1:].astype(np.float64) + numbers[:-1]) / 2).astype(np.float32)
        near = [np.nextafter(middles, np.float32(side)) for side in (-np.inf, np.inf)]
        x = np.concatenate([numbers, middles, *near, np.float32([0.0, 1e-30, -1e-30, 3e38, -3e38])])
        ones = np.ones(x.size, np.float32)
        sums = weighted_sums(x[None], levels, np.ones(1, np.float32), ones, None)
        assert np.array_equal(sums[1].astype(np.float32), levels.numbers(levels.codes(x[None], ones))[0])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"feedback": np.zeros((23, 23), np.float32)}, r"feedback must be \(K, K\)"),
        ({"group": np.ones(24, np.int32)}, "no such group"),
        ({"group": np.full(24, -1, np.int32)}, "no such group"),
        ({"group": np.zeros(23, np.int32)}, "a group per input"),
        ({"scales": np.ones((1, 31), np.float32)}, "scales must be"),
        ({"lows": np.ones((2, 32), np.float32)}, "scales must be"),
        ({"codes": np.zeros((1, 23, 32), np.uint16)}, "codes must have the shape"),
        ({"weights": np.zeros((1, 24, 16), np.float32)}, "weights must be"),
        ({"end": 25}, "inputs out of range"),
        ({"begin": -1}, "inputs out of range"),
        ({"strip_end": 2}, "strips out of range"),
        ({"isa": "abacus"}, "cannot run 'abacus'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(other, says):
    given = {
        "rounding": _core.Rounding.integers(-8, 7), "weights": np.zeros((1, 24, 32), np.float32),
        "feedback": np.zeros((24, 24), np.float32), "group": np.zeros(24, np.int32),
        "scales": np.ones((1, 32), np.float32), "divisors": np.ones((1, 32), np.float32), "lows": None,
        "codes": np.zeros((1, 24, 32), np.uint16), "begin": 0, "end": 24, "strip_begin": 0, "strip_end": 1,
        "isa": "scalar",
    }  # fmt: skip
    _core.sweep(**given)
    with pytest.raises(ValueError, match=says):
        _core.sweep(**given | other)


def test_tables_that_are_none_are_refused():
    three, four = np.zeros(3, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ValueError, match="a power of two of levels"):
        _core.Rounding.table(three, three, np.zeros(3, np.uint16))
    with pytest.raises(ValueError, match="a code per level"):
        _core.Rounding.table(four, four, np.zeros(4, np.uint16))
    with pytest.raises(ValueError, match="levels"):
        _core.Rounding.integers(3, 3)
