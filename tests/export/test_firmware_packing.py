"""Packed weights come back as they were, and lie where the layouts say."""

import numpy as np
import pytest

from scrimp.export.firmware.packing import PACKINGS


def weights_of(name, n, k, seed):
    packing = PACKINGS[name]
    rng = np.random.default_rng(seed)
    if name == "B1":
        return (2 * rng.integers(0, 2, (n, k)) - 1).astype(np.int8)
    return rng.integers(packing.low, packing.high + 1, (n, k)).astype(np.int8)


@pytest.mark.parametrize("name", PACKINGS)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 5), (2, 19), (5, 38), (4, 33), (7, 64), (1, 9), (10, 100)])
def test_unpacking_is_the_inverse(name, n, k):
    weight = weights_of(name, n, k, n * 1000 + k)
    packing = PACKINGS[name]
    words = packing.pack(weight)
    assert words.dtype in (np.int8, np.uint8, np.uint32)
    np.testing.assert_array_equal(packing.unpack(words, n, k), weight)
    assert words.nbytes == packing.bytes(n, k)


BITS = {"W8": 8, "W4": 4, "T2": 2, "T5": 8 / 5, "T19": 32 / 19, "B1": 1, "P2": 2, "P4": 4, "P8": 8}


@pytest.mark.parametrize("name", PACKINGS)
def test_a_weight_takes_the_bits_it_should(name):
    n, k = 8, 5 * 19 * 32
    assert 8 * PACKINGS[name].pack(weights_of(name, n, k, 0)).nbytes == n * k * BITS[name]


def test_words_by_hand():
    pack = {name: lambda rows, p=p: p.pack(np.array(rows, np.int8)).tolist() for name, p in PACKINGS.items()}
    assert pack["W4"]([[-8, 7], [1, 0]]) == [(0 | 15 << 4 | 8 << 8 | 8 << 12) | (9 | 8 << 4 | 8 << 8 | 8 << 12) << 16]
    assert pack["T5"]([[1, 0, 0, 0, -1]]) == [2 + 3 + 9 + 27]
    assert pack["T5"]([[1] * 5, [-1] * 5]) == [242, 0]
    assert pack["T19"]([[1] * 19]) == [sum(26 << 5 * i for i in range(5)) | 80 << 25]
    assert pack["B1"]([[1, -1, 1]]) == [0b101]
    assert pack["P2"]([[-2, 1]]) == [0b01, 0b10]


def test_group_major_rows_of_a_group_are_neighbours():
    weight = np.zeros((3, 38), np.int8)
    weight[:, 19] = 1
    first, second = PACKINGS["T19"].pack(weight).reshape(2, 3)
    assert np.unique(first).size == 1
    np.testing.assert_array_equal(second, first + 1)


@pytest.mark.parametrize(
    ("name", "weight", "held"),
    [
        ("T5", [[-1, 0, 1]], True),
        ("T5", [[2, 0]], False),
        ("B1", [[1, -1]], True),
        ("B1", [[1, 0]], False),
        ("T2", [[-2, 1]], True),
        ("T2", [[2, 0]], False),
        ("W4", [[-8, 7]], True),
        ("W4", [[8, 0]], False),
        ("W8", [[-128, 127]], True),
        ("P8", [[0] * 32768], True),
        ("P8", [[0] * 32769], False),
    ],
)
def test_what_a_packing_holds(name, weight, held):
    assert PACKINGS[name].holds(np.array(weight, np.int8)) is held
