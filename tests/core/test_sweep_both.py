"""Rounding whose rows make up for each other as well, on every instruction set.

As in test_sweep.py: what the core says was missed is put into the formula in float64, and the code must be the nearest
to what comes out.
"""

import numpy as np
import pytest
from test_sweep import FORMATS, UNIT, gamma, problem

from scrimp import _core
from scrimp.quantize.nearest import rounding_of


def strictly_lower(side, seed):
    rng = np.random.default_rng(seed)
    return np.tril(rng.normal(0, side**-0.5, (side, side)), -1).astype(np.float32)


def swept(weight, levels, by_input, by_row, scale, low, isa):
    """Codes and misses ``(N, K)``; what lies on and above the diagonals must not matter."""
    missed, codes = weight.copy(), np.zeros(weight.shape, np.uint16)
    above = [np.triu(np.full(square.shape, 1e30, np.float32)) for square in (by_input, by_row)]
    group, row = np.zeros(weight.shape[1], np.int32), [None if x is None else x[None] for x in (scale, low)]
    _core.sweep_both(rounding_of(levels), missed, by_input + above[0], by_row + above[1], group, row[0], row[0], row[1],
                     codes, isa)  # fmt: skip
    return codes, missed


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 23), (4, 16), (33, 17), (38, 70)])
@pytest.mark.parametrize("name", FORMATS)
def test_every_code_is_the_nearest_to_the_weight_with_both_feedbacks(name, rows, cols, isa):
    weight, levels, by_input, scale, low = problem(name, rows, cols)
    by_input, by_row = np.tril(by_input, -1), strictly_lower(rows, 5)
    codes, missed = swept(weight, levels, by_input, by_row, scale, low, isa)
    column, least = scale[:, None], None if low is None else low[:, None]
    every = levels.numbers(np.arange(levels.format.element.levels, dtype=np.uint16))
    values = every[codes] * column + (np.float32(0) if least is None else least)
    assert np.array_equal(missed, weight - values)
    from_inputs = missed @ by_input.T.astype(np.float64)
    passed_on = missed + from_inputs
    target = weight + from_inputs + by_row.astype(np.float64) @ passed_on
    size = np.abs(missed) @ np.abs(by_input.T).astype(np.float64)
    size = np.abs(weight) + size + np.abs(by_row) @ (np.abs(missed) + size) + (0 if low is None else np.abs(least))
    bound = gamma(rows + cols + 6) * size
    lower, upper = (
        levels.values(
            levels.codes(np.ascontiguousarray((target + sign * bound).T, np.float32), scale, low), scale, low
        ).T
        for sign in (-1, 1)
    )
    assert ((lower <= values) & (values <= upper)).all()
    if levels.format.element.name != "posit8_1":  # rounds to the nearest by its own rule, not by distance
        grid = np.unique(every[np.isfinite(every)])[:, None, None] * column.astype(np.float64)
        grid = grid + (0.0 if low is None else least)
        assert (np.abs(target - values) <= np.abs(target - grid).min(axis=0) + 2 * bound + 4 * UNIT).all()


def test_every_vector_unit_finds_the_same_bits(isa):
    if isa == "scalar":
        pytest.skip("its sums are not fused")
    weight, levels, by_input, scale, low = problem("int3:row@f32", 70, 96)
    units = [isa, next(name for name in _core.available_isas() if name != "scalar")]
    one, other = (swept(weight, levels, by_input, strictly_lower(70, 1), scale, low, name) for name in units)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"by_input": np.zeros((23, 23), np.float32)}, r"by_input must be \(K, K\)"),
        ({"by_row": np.zeros((24, 24), np.float32)}, r"by_row must be \(N, N\)"),
        ({"group": np.ones(24, np.int32)}, "no such group"),
        ({"group": np.full(24, -1, np.int32)}, "no such group"),
        ({"group": np.zeros(23, np.int32)}, "a group per input"),
        ({"scales": np.ones((1, 9), np.float32)}, "scales must be"),
        ({"divisors": np.ones((2, 8), np.float32)}, "scales must be"),
        ({"lows": np.ones((2, 8), np.float32)}, "scales must be"),
        ({"codes": np.zeros((8, 23), np.uint16)}, "codes must have the shape"),
        ({"isa": "abacus"}, "cannot run 'abacus'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(other, says):
    given = {
        "rounding": _core.Rounding.integers(-8, 7), "weights": np.zeros((8, 24), np.float32),
        "by_input": np.zeros((24, 24), np.float32), "by_row": np.zeros((8, 8), np.float32),
        "group": np.zeros(24, np.int32), "scales": np.ones((1, 8), np.float32),
        "divisors": np.ones((1, 8), np.float32), "lows": None, "codes": np.zeros((8, 24), np.uint16), "isa": "scalar",
    }  # fmt: skip
    _core.sweep_both(**given)
    with pytest.raises(ValueError, match=says):
        _core.sweep_both(**given | other)
