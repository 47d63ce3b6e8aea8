"""llama.cpp's block types, byte for byte against the gguf package's quantizers."""

import numpy as np
import pytest
from block_checks import adversarial_rows

from scrimp.formats import encode

gguf = pytest.importorskip("gguf")

TYPES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "tq1_0": 54, "tq2_0": 66}
BLOCK = {"tq1_0": 256, "tq2_0": 256}


def ours_as_bytes(name, tensor):
    """Our codes and scales as ggml blocks: nibbles j and j+16 share a byte, fifth bits are one little-endian word."""
    size = BLOCK.get(name, 32)
    codes = tensor.codes().reshape(-1, size)
    d = tensor.row_scales().astype("<f2").reshape(-1, 1).view(np.uint8)
    if name == "q8_0":
        return np.concatenate([d, (codes ^ 128).astype(np.uint8)], axis=1)
    if name == "tq2_0":
        fields = codes.reshape(-1, 2, 4, 32)
        packed = sum(fields[:, :, i] << (2 * i) for i in range(4)).astype(np.uint8).reshape(-1, 64)
        return np.concatenate([packed, d], axis=1)
    if name == "tq1_0":
        head = codes[:, :240]
        fives = [head[:, :160].reshape(-1, 5, 32), head[:, 160:].reshape(-1, 5, 16)]
        parts = [sum(f[:, i].astype(int) * 3 ** (4 - i) for i in range(5)) for f in fives]
        last = codes[:, 240:].reshape(-1, 4, 4)
        parts.append(sum(last[:, i].astype(int) * 3 ** (4 - i) for i in range(4)))
        packed = ((np.concatenate(parts, axis=1) * 256 + 242) // 243).astype(np.uint8)
        return np.concatenate([packed, d], axis=1)
    parts = [d]
    if name in ("q4_1", "q5_1"):
        parts.append(tensor.row_mins().astype("<f2").reshape(-1, 1).view(np.uint8))
    if name in ("q5_0", "q5_1"):
        word = ((codes >> 4).astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1).astype("<u4")
        parts.append(word[:, None].view(np.uint8))
    low = codes & 15
    parts.append((low[:, :16] | low[:, 16:] << 4).astype(np.uint8))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value", "ignore:divide by zero")
def test_bytes_equal_those_of_gguf(name):
    rows = np.concatenate(
        [np.random.default_rng(0).normal(size=(2048, 512)).astype(np.float32), adversarial_rows(2, 256)]
    )
    size = BLOCK.get(name, 32)
    # at the extremes f16 scales overflow or vanish, and gguf writes infinities and divides by subnormals: left out
    peak = np.abs(rows.reshape(len(rows), -1, size)).max(axis=(1, 2))
    rows = rows[(peak < 60_000) & ((peak > 1e-6) | (peak == 0))]
    kind = gguf.GGMLQuantizationType[name.upper()]
    theirs = gguf.quantize(rows, kind).reshape(-1, TYPES[name])
    tensor = encode(rows, name)
    assert np.array_equal(ours_as_bytes(name, tensor), theirs)
    assert np.array_equal(tensor.decode(), gguf.dequantize(theirs.reshape(len(rows), -1), kind))


def test_spot_vectors():
    row = np.zeros((1, 32), np.float32)
    row[0, :2], row[0, 16] = (-8, 7), 1
    q4 = encode(row, "q4_0")
    assert ours_as_bytes("q4_0", q4)[0, :5].tobytes().hex() == "003c908f88"
    row[0, :2], row[0, 16] = (6, -6), 0.5
    mx = encode(row, "mxfp4")
    codes = mx.codes()[0]
    assert [int(codes[j] | codes[j + 16] << 4) for j in range(3)] == [0x17, 0x0F, 0x00]
    assert int(np.log2(mx.row_scales()[0, 0])) + 127 == 0x7F


def test_iq4nl_levels_are_those_of_gguf():
    from gguf.quants import IQ4_NL, MXFP4

    from scrimp.formats import ELEMENTS

    assert ELEMENTS["iq4nl"].code().values.tolist() == list(IQ4_NL.kvalues)
    assert (2 * ELEMENTS["fp4_e2m1"].code().values).tolist() == list(MXFP4.kvalues)


def test_gguf_reads_our_microscaling_codes():
    """Its decoder is right where its encoder is not (log2 in float32, ties to the smaller)."""
    rows = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    tensor = encode(rows, "mxfp4")
    codes = tensor.codes().reshape(-1, 32)
    scale = (np.log2(tensor.row_scales()) + 127).astype(np.uint8).reshape(-1, 1)
    packed = np.concatenate([scale, (codes[:, :16] | codes[:, 16:] << 4).astype(np.uint8)], axis=1)
    theirs = gguf.dequantize(packed.reshape(64, -1), gguf.GGMLQuantizationType.MXFP4)
    assert np.array_equal(theirs, tensor.decode())
