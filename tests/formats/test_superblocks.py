"""K-quants: what is stored means what llama.cpp's bytes mean; how it is chosen is our own, and worth its bits."""

import numpy as np
import pytest
from block_checks import adversarial_rows, sqnr

from scrimp.errors import UsageError
from scrimp.formats import encode, parse
from scrimp.formats.scale_types import RANGES
from scrimp.tensors import from_codes, part_shapes, stored_bytes

NAMES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")


def fields(codes, width, across):
    """``(B, 256)`` codes → bytes that hold codes ``across`` apart, the first in the lowest bits."""
    per = 8 // width
    parts = codes.reshape(len(codes), -1, per, across).astype(np.uint8)
    return sum(parts[:, :, i] << (width * i) for i in range(per)).astype(np.uint8).reshape(len(codes), -1)


def six_bit_pairs(scales, mins):
    """Q4_K and Q5_K: eight scales and eight mins of 6 bits in twelve bytes."""
    low = [scales[:, :4] | (scales[:, 4:] >> 4) << 6, mins[:, :4] | (mins[:, 4:] >> 4) << 6]
    return np.concatenate([*low, (scales[:, 4:] & 15) | (mins[:, 4:] & 15) << 4], axis=1).astype(np.uint8)


def six_bits(scales):
    """Q3_K: sixteen scales of 6 bits in twelve bytes."""
    low = (scales[:, :8] & 15) | (scales[:, 8:] & 15) << 4
    high = (scales >> 4).reshape(-1, 4, 4)
    return np.concatenate([low, sum(high[:, i] << (2 * i) for i in range(4))], axis=1).astype(np.uint8)


def as_ggml(name, codes, scales, mins, d, dmin):
    """Super-blocks ``(B, 256)`` and their parts → ggml's bytes."""
    d, dmin = (x.astype("<f2").reshape(-1, 1).view(np.uint8) for x in (d, dmin))
    if name == "q2_k":
        return np.concatenate([(scales | mins << 4).astype(np.uint8), fields(codes, 2, 32), d, dmin], axis=1)
    if name == "q3_k":
        return np.concatenate([fields(codes >> 2, 1, 32), fields(codes & 3, 2, 32), six_bits(scales + 32), d], axis=1)
    if name == "q4_k":
        return np.concatenate([d, dmin, six_bit_pairs(scales, mins), fields(codes, 4, 32)], axis=1)
    if name == "q5_k":
        packed = [d, dmin, six_bit_pairs(scales, mins), fields(codes >> 4, 1, 32), fields(codes & 15, 4, 32)]
        return np.concatenate(packed, axis=1)
    halves = codes.reshape(-1, 2, 128)
    low, high = (np.concatenate([fields(halves[:, i], width, across) for i in (0, 1)], axis=1)
                 for halves, width, across in ((halves & 15, 4, 64), (halves >> 4, 2, 32)))  # fmt: skip
    return np.concatenate([low, high, scales.astype(np.int8).view(np.uint8), d], axis=1)


def random_parts(name, rows, supers, seed=0):
    """Codes, scales, mins and units of every value, not only those that encoding gives."""
    format_, rng = parse(name), np.random.default_rng(seed)
    (low, high), groups = RANGES[format_.scale], supers * 256 // format_.block
    codes = rng.integers(0, format_.element.levels, (rows, supers * 256)).astype(np.uint8)
    scales, mins = rng.integers(low, high + 1, (rows, groups)), rng.integers(0, high + 1, (rows, groups))
    units = [(rng.normal(size=(rows, supers)) * 2.0 ** rng.integers(-20, 4)).astype(np.float16) for _ in range(2)]
    return format_, codes, scales, mins, units


@pytest.mark.parametrize("name", NAMES)
def test_gguf_decodes_the_same_numbers_from_every_code_scale_and_min(name):
    gguf = pytest.importorskip("gguf")
    seen = np.zeros(2 ** parse(name).element.bits, bool)
    for seed in range(4):
        format_, codes, scales, mins, units = random_parts(name, 512, 2, seed)
        seen[codes] = True
        extra = dict(zip(("super_scales", "super_mins")[: 1 + format_.has_min], units, strict=False))
        ours = from_codes(format_, codes, scales, mins if format_.has_min else None, extra).decode()
        blocks = [x.reshape(1024, -1) for x in (codes, scales, mins, *units)]
        theirs = gguf.dequantize(as_ggml(name, *blocks), gguf.GGMLQuantizationType[name.upper()])
        assert np.array_equal(ours.reshape(1024, 256), theirs)
    assert seen.all()


@pytest.mark.parametrize("name", NAMES)
def test_gguf_reads_what_encoding_stores(name):
    gguf = pytest.importorskip("gguf")
    rows = np.concatenate(
        [np.random.default_rng(1).normal(size=(64, 512)).astype(np.float32), adversarial_rows(2, 256)]
    )
    tensor = encode(rows, name)
    format_ = tensor.format
    d, dmin = (tensor.extra.get(part) for part in ("super_scales", "super_mins"))
    units = [np.zeros((len(rows), 2), np.float16) if u is None else u.transpose(0, 2, 1).reshape(-1, 2)[: len(rows)]
             for u in (d, dmin)]  # fmt: skip
    spread = [np.repeat(u.astype(np.float64), 256 // format_.block, axis=1) for u in units]
    found = [tensor.row_scales(), -tensor.row_mins() if format_.has_min else np.zeros_like(tensor.row_scales())]
    scales, mins = (np.rint(np.divide(x, u, out=np.zeros(x.shape), where=u != 0)).astype(int)
                    for x, u in zip(found, spread, strict=True))  # fmt: skip
    blocks = [x.reshape(2 * len(rows), -1) for x in (tensor.codes(), scales, mins, *units)]
    theirs = gguf.dequantize(as_ggml(name, *blocks), gguf.GGMLQuantizationType[name.upper()])
    assert np.array_equal(tensor.decode(), theirs.reshape(rows.shape))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cols", [1, 16, 100, 256, 300, 576])
def test_parts_come_back_from_what_is_packed(name, cols):
    """Rows of any width: the last super-block has fewer blocks, and the last of those fewer weights."""
    tensor = encode(np.random.default_rng(2).normal(size=(17, cols)), name)
    assert {part: array.shape for part, array in tensor.parts().items()} == part_shapes(tensor.format, tensor.shape)
    assert tensor.nbytes == stored_bytes(tensor.format, tensor.shape)
    format_, (rows, groups) = tensor.format, tensor.row_scales().shape
    assert (rows, groups) == (17, -(-cols // format_.block))
    rng, (low, high) = np.random.default_rng(3), RANGES[format_.scale]
    scales, mins = rng.integers(low, high + 1, (rows, groups)), rng.integers(0, high + 1, (rows, groups))
    ones = np.ones((rows, format_.supers(cols)), np.float16)
    extra = {"super_scales": ones} | ({"super_mins": ones} if format_.has_min else {})
    again = from_codes(format_, tensor.codes(), scales, mins if format_.has_min else None, extra)
    assert np.array_equal(again.codes(), tensor.codes())
    assert np.array_equal(again.row_scales(), scales)
    if format_.has_min:
        assert np.array_equal(again.row_mins(), -mins)


@pytest.mark.parametrize("name", NAMES)
def test_a_ragged_end_errs_no_more_than_the_rest(name):
    rows = np.random.default_rng(4).normal(size=(256, 576)).astype(np.float32)
    kept = encode(rows, name).decode()
    assert sqnr(rows[:, 512:], kept[:, 512:]) > sqnr(rows[:, :512], kept[:, :512]) - 0.2
    assert np.array_equal(encode(rows[:, :512], name).decode(), kept[:, :512])


@pytest.mark.parametrize(
    ("name", "plain", "gain"),
    [("q2_k", "int2:g32", 2.5), ("q3_k", "int3:g32", 1.5), ("q4_k", "int4:g32", 1.5), ("q5_k", "int5:g32", 1.2),
     ("q6_k", "int6:g32", 1.2)],
)  # fmt: skip
def test_two_levels_err_less_than_searched_scales_of_about_the_same_bits(name, plain, gain):
    """int2:g32 and int6:g32 take 0.13 and 0.06 bits less, worth 0.8 and 0.4 dB; int3:g32 takes 0.06 more."""
    rows = np.random.default_rng(5).normal(size=(128, 1024)).astype(np.float32)
    apart = parse(name).bits_per_weight(4096, 4096) - parse(plain).bits_per_weight(4096, 4096)
    assert -0.07 < apart < 0.13
    best = sqnr(rows, encode(rows, plain, rule="mse").decode())
    assert sqnr(rows, encode(rows, name).decode()) > best + gain


def test_the_longer_side_of_a_block_gets_the_longer_side_of_the_codes():
    row = np.zeros((1, 256), np.float32)
    row[0, :16] = np.linspace(0, 32, 16)
    kept = encode(row, "q6_k")
    assert kept.row_scales()[0, 0] < 0
    assert kept.codes()[0, 15] == 0
    assert kept.decode()[0, 15] == pytest.approx(32, rel=0.01)


def test_a_block_that_is_far_from_zero_keeps_its_min():
    rows = np.random.default_rng(6).normal(-3, 0.1, (8, 512)).astype(np.float32)
    assert np.abs(encode(rows, "q4_k").decode() - rows).max() < 0.15
    above = encode(-rows, "q4_k")
    assert np.all(above.row_mins() == 0)  # it is subtracted, and has no sign


@pytest.mark.parametrize(("name", "rule"), [("q4_k", "absmax"), ("q6_k", "mse"), ("int4:g32", "super")])
def test_scales_in_two_levels_have_one_rule(name, rule):
    with pytest.raises(UsageError, match=f"'{rule}' is no rule for its scales"):
        encode(np.ones((1, 256)), name, rule=rule)
