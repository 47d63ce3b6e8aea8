"""Block types against the gguf package, bit for bit, on random bytes: whatever a file may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scrimp.sources.gguf_blocks import TYPES, BlockType, narrowest, to_floats, to_qtensor

quants = pytest.importorskip("gguf").quants
constants = pytest.importorskip("gguf").constants

BY_NAME = {kind.name: kind for kind in TYPES.values()}
#: where the float16 scales and mins of a block lie
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "IQ4_NL": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
}
ROWS, BLOCKS_PER_ROW = 37, 3


def dequantized(kind: BlockType, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return np.asarray(quants.dequantize(rows, constants.GGMLQuantizationType(kind.number)), np.float32)


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def random_rows(kind: BlockType, seed: int = 0) -> NDArray[np.uint8]:
    """Random bytes; scales any finite float16, a third of them subnormal, zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (ROWS * BLOCKS_PER_ROW, kind.nbytes), np.uint8)
    for at in HALVES[kind.name]:
        bits = rng.integers(0, 2**16, len(blocks), np.uint16)
        bits[bits & 0x7C00 == 0x7C00] &= 0xBFFF
        bits[::3] &= 0x83FF
        bits[:2] = (0x0000, 0x8000)
        blocks[:, at : at + 2] = bits[:, None].view(np.uint8)
    return blocks.reshape(ROWS, -1)


@pytest.mark.parametrize("name", sorted(set(HALVES) - {"TQ2_0"}))
def test_the_equal_format_decodes_to_the_same_bits(name: str) -> None:
    kind = BY_NAME[name]
    rows = random_rows(kind)
    tensor = to_qtensor(kind, rows)
    assert tensor is not None
    assert tensor.format == kind.format
    assert tensor.shape == (ROWS, BLOCKS_PER_ROW * kind.block)
    assert same_bits(tensor.dequantize(), dequantized(kind, rows))


def test_mxfp4_is_the_same_bits_and_what_overflows_is_decoded_to_floats() -> None:
    kind = BY_NAME["MXFP4"]
    rows = np.random.default_rng(0).integers(0, 256, (ROWS, BLOCKS_PER_ROW * kind.nbytes), np.uint8)
    exponents = rows[:, :: kind.nbytes]
    exponents[exponents > 252] = 0
    tensor = to_qtensor(kind, rows)
    assert tensor is not None
    assert tensor.format.name == "mxfp4"
    assert same_bits(tensor.dequantize(), dequantized(kind, rows))
    for too_large in (253, 255):
        exponents[3, 1] = too_large
        assert to_qtensor(kind, rows) is None


def test_tq2_0_of_trits_is_ternary_and_the_same_bits() -> None:
    kind = BY_NAME["TQ2_0"]
    rows = random_rows(kind).reshape(-1, kind.nbytes)
    codes = rows[:, :64]
    rows[:, :64] = codes & ~((codes & 0x55) & (codes >> 1 & 0x55))  # 3 becomes 2 in each field
    rows = rows.reshape(ROWS, -1)
    tensor = to_qtensor(kind, rows)
    assert tensor is not None
    assert tensor.format.name == "ternary:g256"
    assert same_bits(tensor.dequantize(), dequantized(kind, rows))


def test_tq2_0_with_the_value_2_is_decoded_to_floats() -> None:
    kind = BY_NAME["TQ2_0"]
    rows = random_rows(kind)
    rows[5, 7] = 3
    assert to_qtensor(kind, rows) is None
    assert same_bits(narrowest(to_floats(kind, rows)).dequantize(), dequantized(kind, rows))


def test_every_byte_of_tq1_0_means_the_same_trits() -> None:
    kind = BY_NAME["TQ1_0"]
    rows = np.zeros((256, kind.nbytes), np.uint8)
    rows[:, :52] = np.arange(256, dtype=np.uint8)[:, None]
    rows[:, 52:] = np.array([1.0], np.float16).view(np.uint8)
    tensor = to_qtensor(kind, rows)
    assert tensor is not None
    assert same_bits(tensor.dequantize(), dequantized(kind, rows))


@pytest.mark.parametrize(("name", "dtype"), [("F32", np.uint32), ("F16", np.uint16), ("BF16", np.uint16)])
def test_floats_keep_their_bits(name: str, dtype: type[np.unsignedinteger[Any]]) -> None:
    kind = BY_NAME[name]
    bits = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (ROWS, 10), dtype)
    tensor = to_qtensor(kind, bits.view(np.uint8))
    assert tensor is not None
    assert tensor.format.name == name.lower()
    mine, theirs = tensor.dequantize(), dequantized(kind, bits.view(np.uint8))
    assert np.array_equal(np.isnan(mine), np.isnan(theirs))
    assert same_bits(np.nan_to_num(mine), np.nan_to_num(theirs))


DECODED = sorted(k.name for k in TYPES.values() if k.format is None and k.readable)


@pytest.mark.parametrize("name", DECODED)
def test_a_type_without_an_equal_format_is_decoded_exactly(name: str) -> None:
    kind = BY_NAME[name]
    rows = quiet_bytes(kind)
    assert to_qtensor(kind, rows) is None
    theirs = dequantized(kind, rows)
    assert np.isfinite(theirs).all(), "the test's own bytes must mean finite numbers"
    assert same_bits(narrowest(to_floats(kind, rows)).dequantize(), theirs)


def quiet_bytes(kind: BlockType) -> NDArray[np.uint8]:
    """Random blocks whose bytes are below 0x3C, so that no float16 among them is large."""
    return np.random.default_rng(2).integers(0, 0x3C, (5, 2 * kind.nbytes), np.uint8)


def test_the_narrowest_float_is_f16_only_where_that_is_exact() -> None:
    assert narrowest(np.array([[0.5, 65504.0, 2.0**-24]], np.float32)).format.name == "f16"
    for value in (65536.0, 2.0**-25, 1 + 2.0**-11):
        assert narrowest(np.array([[0.5, value]], np.float32)).format.name == "f32"


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(number): sizes for number, sizes in constants.GGML_QUANT_SIZES.items()}
    names = {int(number): number.name for number in constants.GGML_QUANT_SIZES}
    ours = {number: kind for number, kind in TYPES.items() if not kind.tail}  # I2_S is bitnet.cpp's own
    assert {number: (kind.block, kind.nbytes) for number, kind in ours.items()} == theirs
    assert {number: kind.name for number, kind in ours.items()} == names
