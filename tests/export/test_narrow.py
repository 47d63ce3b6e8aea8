"""Offsets in fewer bytes give the same code for every sum: all sums are tried."""

from dataclasses import replace

import numpy as np
import pytest
from random_programs import product

from scrimp.export.firmware.narrow import narrow, stored_bytes, upright, width
from scrimp.integer.program import Requantize
from scrimp.integer.reference import requantize, step
from scrimp.models.cnn import Image


@pytest.mark.parametrize("seed", range(12))
def test_every_sum_keeps_its_code(seed):
    rng = np.random.default_rng(seed)
    n, pre, shift = 40, seed % 3, int(rng.integers(12, 20))
    reach = rng.integers(50, 5000, n)
    multiplier = rng.integers(1 << shift - 8, 1 << shift - 3, n) * rng.choice([1, 1, 1, -1, 0], n)
    offset = rng.integers(-100 << shift, 100 << shift, n)
    by = Requantize(multiplier.astype(np.int32), offset.astype(np.int32), pre, shift, (0, -128)[seed % 2], 127)
    found = narrow(by, reach)
    moved = Requantize(by.multiplier, found.stored << found.shift, pre, shift, by.low, by.high)
    sums = np.arange(-5000 << pre, (5000 << pre) + 1)[:, None]
    within = np.abs(sums >> pre) <= reach
    before, after = (requantize(np.where(within, sums, 0).astype(np.int32), r) for r in (by, moved))
    np.testing.assert_array_equal(before[within], after[within])
    assert stored_bytes(found.stored) <= stored_bytes(by.offset)


def test_long_offsets_become_three_bytes():
    rng = np.random.default_rng(1)
    multiplier, offset = rng.integers(20000, 60000, 128), rng.integers(-(1 << 28), 1 << 28, 128)
    by = Requantize(multiplier.astype(np.int32), offset.astype(np.int32), 0, 21, 0, 127)
    found = narrow(by, np.full(128, 18000))
    assert width(by.offset) == 4
    assert width(found.stored) == 3


@pytest.mark.parametrize(
    ("values", "kind", "size"),
    [
        ([7, 7], 0, 4),
        ([0, 65535], 2, 4),
        ([-1, 7], 3, 6),
        ([-(1 << 23), (1 << 23) - 1], 3, 6),
        ([0, 1 << 23], 4, 8),
    ],
)
def test_the_narrowest_that_holds_them(values, kind, size):
    assert width(np.array(values, np.int32)) == kind
    assert stored_bytes(np.array(values, np.int32)) == size


@pytest.mark.parametrize("element", ["ternary", "binary"])
def test_upright_rows_make_the_same_codes(element):
    rng = np.random.default_rng(0)
    image = Image(5, 4, 6)
    op = product(rng, "c", 0, 1, image, 24, (3, 3), 1, 1, 2, element=element)
    negative = rng.choice([-1, 1], 24)
    by = Requantize(
        (900 * negative).astype(np.int32), rng.integers(-90000, 90000, 24).astype(np.int32), 0, 12, -128, 127
    )
    op = replace(op, requantize=by)
    turned = upright(op)
    assert turned.requantize.multiplier.min() > 0 > by.multiplier.min()
    x = rng.integers(-128, 128, (9, 5, 4, 6)).astype(np.int8)
    np.testing.assert_array_equal(step(turned, [x]), step(op, [x]))
    dropped = replace(op, requantize=replace(by, pre=1))
    assert upright(dropped) is dropped
