"""The tile layout: exhaustive over codes, drawn by hand once, compiled against NumPy, and both against the drawing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp import _core, tensors
from scrimp.formats import ELEMENTS, Format, packing
from scrimp.formats.catalogue import element
from scrimp.formats.code import code_type

#: One element for every way to cut codes into planes, those of the kernels first.
CODED = list({e.planes: e for e in reversed([*ELEMENTS.values(), *map(element, ("fixed10.4", "fixed15.3"))])
              if e.kind != "float"}.values())  # fmt: skip
SHAPES = [(1, 1), (16, 20), (16, 32), (17, 33), (5, 172), (40, 341), (32, 576)]


def codes_of(element, shape, seed=0):
    return np.random.default_rng(seed).integers(0, element.levels, shape).astype(code_type(element.bits))


def test_every_cut_into_planes_is_tested():
    assert {e.planes for e in CODED} == {e.planes for e in ELEMENTS.values() if e.kind != "float"} | {
        (8, 2),
        (8, 4, 2, 1),
    }


@pytest.mark.parametrize("element", CODED, ids=lambda e: e.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_codes_come_back(element, shape):
    codes = codes_of(element, shape)
    planes = packing.pack_codes(codes, element)
    assert np.array_equal(packing.unpack_codes(planes, element, shape), codes)


@pytest.mark.parametrize("element", CODED, ids=lambda e: e.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_compiled_packing_equals_numpy(element, shape):
    codes = codes_of(element, shape, seed=1)
    truth = packing.pack_codes(codes, element)
    tensor = tensors.from_codes(Format(element, None, None), codes, None)
    planes = tensor.planes
    assert len(planes) == len(truth)
    for plane, expected in zip(planes, truth, strict=True):
        assert plane.shape == expected.shape
        assert np.array_equal(plane, expected)
    assert np.array_equal(tensor.codes(), codes)
    if element.bits <= 8:
        assert np.array_equal(_core.unpack_codes(truth, element.planes, shape), codes)


def test_a_nibble_lies_where_the_drawing_says():
    codes = np.zeros((16, 8), np.uint8)
    codes[3] = [1, 2, 3, 4, 5, 6, 7, 8]  # row 3 owns bytes 12 … 15
    (plane,) = packing.pack_codes(codes, ELEMENTS["int4"])
    assert plane.shape == (1, 1, 64)
    assert plane[0, 0, 12:16].tolist() == [1 | 5 << 4, 2 | 6 << 4, 3 | 7 << 4, 4 | 8 << 4]
    assert plane[0, 0].sum() == plane[0, 0, 12:16].sum()


def test_five_trits_share_a_byte_in_base_three():
    codes = np.zeros((1, 20), np.uint8)
    codes[0, [0, 4, 8, 12, 16]] = [2, 1, 0, 2, 1]  # inputs 0, 4, 8, 12, 16 share byte 0
    (plane,) = packing.pack_codes(codes, ELEMENTS["ternary"])
    assert plane[0, 0, 0] == 2 + 3 * 1 + 9 * 0 + 27 * 2 + 81 * 1


def test_every_trit_byte_is_used_once():
    codes = np.zeros((1, 20 * 243), np.uint8)
    for byte in range(243):
        for i in range(5):
            codes[0, 20 * byte + 4 * i] = byte // 3**i % 3
    (plane,) = packing.pack_codes(codes, ELEMENTS["ternary"])
    assert plane[0, :, 0].tolist() == list(range(243))


def test_three_bits_are_a_low_plane_of_two_and_a_high_plane_of_one():
    codes = np.full((1, 32), 0b101, np.uint8)
    low, high = packing.pack_codes(codes, ELEMENTS["int3"])
    assert low.shape == (1, 2, 64)
    assert high.shape == (1, 1, 64)
    assert low[0, 0, 0] == 0b01010101
    assert high[0, 0, 0] == 0xFF


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
@given(rows=st.integers(1, 40), cols=st.integers(1, 70), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_floats_come_back_bit_for_bit(dtype, rows, cols, seed):
    bits = np.random.default_rng(seed).integers(0, 256, (rows, cols * np.dtype(dtype).itemsize), dtype=np.uint8)
    values = bits.view(dtype)
    back = packing.unpack_floats(packing.pack_floats(values), np.dtype(dtype), (rows, cols))
    assert np.array_equal(np.ascontiguousarray(back).view(np.uint8), bits)
