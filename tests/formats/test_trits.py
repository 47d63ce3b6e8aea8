"""Packings of trits: round trips over everything, their alignment costs, and damage refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp.errors import Refused
from scrimp.formats import trits
from scrimp.formats.trits import PACKINGS

trit_lists = st.lists(st.integers(0, 2), max_size=300).map(lambda values: np.array(values, np.uint8))


@pytest.mark.parametrize("name", PACKINGS)
@given(codes=trit_lists)
@settings(max_examples=40, deadline=None)
def test_packed_trits_come_back(name, codes):
    packing = PACKINGS[name]
    packed = packing.pack(codes)
    assert packed.dtype == np.uint8
    assert packed.size == packing.row_bytes(codes.size)
    assert np.array_equal(packing.unpack(packed, codes.size), codes)


@pytest.mark.parametrize(("name", "units"), [("fives", 243), ("threes", 27), ("tens", 59_049), ("fields", 3)])
def test_every_unit_is_used_once(name, units):
    packing = PACKINGS[name]
    every = (np.arange(units)[:, None] // 3 ** np.arange(packing.trits) % 3).astype(np.uint8)
    packed = packing.pack(every.reshape(-1))
    assert np.array_equal(packing.unpack(packed, every.size).reshape(every.shape), every)
    bits = np.unpackbits(packed, bitorder="little")[: units * packing.bits].reshape(units, packing.bits)
    numbers = bits.astype(np.int64) @ (1 << np.arange(packing.bits))
    assert np.array_equal(np.sort(numbers), np.arange(units))


def test_bits_per_trit_and_their_efficiency():
    assert {name: p.bits_per_trit for name, p in PACKINGS.items()} == {
        "fields": 2,
        "fives": 1.6,
        "threes": 5 / 3,
        "tens": 1.6,
    }
    assert round(PACKINGS["fives"].efficiency, 4) == 0.9906
    assert all(p.efficiency < 1 for p in PACKINGS.values())


@pytest.mark.parametrize(
    ("name", "count", "alignment", "nbytes"),
    [
        ("fives", 576, 1, 116),
        ("fives", 576, 64, 128),
        ("threes", 576, 1, 120),
        ("threes", 576, 64, 128),
        ("tens", 576, 1, 116),
        ("fields", 576, 64, 192),
        ("fives", 4096, 64, 832),
        ("fives", 0, 64, 0),
        ("tens", 1, 1, 2),
        ("threes", 1, 1, 1),
    ],
)
def test_what_alignment_costs(name, count, alignment, nbytes):
    assert PACKINGS[name].row_bytes(count, alignment) == nbytes


@given(codes=trit_lists)
@settings(max_examples=60, deadline=None)
def test_position_lists_come_back(codes):
    packed = trits.pack_positions(codes)
    assert packed.size == trits.position_bytes(codes.size, int((codes != 1).sum()))
    assert np.array_equal(trits.unpack_positions(packed, codes.size), codes)


def test_position_lists_pay_below_their_break_even():
    rng = np.random.default_rng(0)
    for density in (0.1, 0.18, 0.21, 0.5):
        codes = np.where(rng.random(1 << 16) < density, rng.choice([0, 2], 1 << 16), 1).astype(np.uint8)
        smaller = trits.pack_positions(codes).size < PACKINGS["fives"].row_bytes(codes.size)
        assert smaller == (density < trits.breakeven_density())


@pytest.mark.parametrize(
    ("packed", "count"),
    [([], 5), ([2, 1], 5), ([1, 9], 5), ([2, 3, 3], 128), ([2, 4, 3], 128), ([0, 7], 5), ([0], 129), ([200], 128)],
)
def test_malformed_position_lists_are_refused(packed, count):
    with pytest.raises(Refused):
        trits.unpack_positions(np.array(packed, np.uint8), count)


@pytest.mark.parametrize(
    ("name", "packed", "count"),
    [("fives", [243], 5), ("threes", [27], 3), ("tens", [0xFF, 0xFF], 10), ("fields", [3], 1)],
)
def test_units_that_no_trits_make_are_refused(name, packed, count):
    with pytest.raises(Refused, match="holds more than"):
        PACKINGS[name].unpack(np.array(packed, np.uint8), count)


def test_multiplicative_bytes_give_all_243_codes_back():
    """llama.cpp's TQ1_0: trit i of ceil(v·256/243), the highest digit first."""
    v = np.arange(243)
    packed = trits.multiplicative(v)
    for i in range(5):
        assert np.array_equal(trits.multiplicative_trit(packed, i), v // 3 ** (4 - i) % 3)
