"""The block types of GGUF: which have an equal Format, and how their bytes become codes, scales and mins.

"Equal" is bit for bit: the float32 that ``QTensor.dequantize`` computes is the one ggml computes. Types without an
equal Format are decoded by the ``gguf`` package. Source: ggml-common.h and ggml-quants.c of ggml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, ScrimpError
from scrimp.formats import Format, parse
from scrimp.tensors import QTensor, from_codes, from_floats, to_f32

U8 = NDArray[np.uint8]
F16 = NDArray[np.float16]
F32 = NDArray[np.float32]

#: Blocks ``(n, nbytes)`` → codes ``(n, block)``, scales ``(n,)`` as stored, mins ``(n,)`` or None.
Decoder = Callable[[U8], tuple[U8, F16 | U8, F16 | None]]


@dataclass(frozen=True, slots=True)
class BlockType:
    """A way GGUF stores numbers: ``block`` weights in ``nbytes`` bytes."""

    number: int
    name: str
    block: int
    nbytes: int
    format: Format | None = None  #: the equal Format
    decode: Decoder | None = None  #: None for bare floats, and for what the gguf package decodes
    tail: int = 0  #: bytes that follow the blocks of a tensor
    readable: bool = True  #: False: integers and intermediate types, which are no weights


def to_qtensor(kind: BlockType, rows: U8) -> QTensor | None:
    """Raw rows ``(N, bytes)`` → QTensor in the equal Format; None where there is none for these values."""
    if kind.format is None:
        return None
    if kind.decode is None:
        return from_floats(kind.format, np.ascontiguousarray(rows).view(_FLOATS[kind.name]))
    count = rows.shape[0]
    codes, scales, mins = kind.decode(np.ascontiguousarray(rows).reshape(-1, kind.nbytes))
    if kind.format.element.kind == "ternary" and codes.max(initial=0) > 2:
        return None  # TQ2_0 can say +2, a trit cannot
    if kind.format.scale == "e8m0" and scales.max(initial=0) > 252:
        return None  # 6 times that overflows, and 255 is a number in ggml but not in OCP's standard
    stored_mins = None if mins is None else mins.reshape(count, -1)
    return from_codes(kind.format, codes.reshape(count, -1), scales.reshape(count, -1), stored_mins)


def to_floats(kind: BlockType, rows: U8) -> F32:
    """Raw rows ``(N, bytes)`` of any readable type → float32 ``(N, K)``."""
    if kind.decode is None and kind.format is not None:
        return to_f32(np.ascontiguousarray(rows).view(_FLOATS[kind.name]), kind.format.element.name)
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError:
        raise ScrimpError(f"Reading {kind.name} needs the gguf package.", hint="pip install gguf") from None
    with np.errstate(all="ignore"):
        return np.asarray(quants.dequantize(rows, GGMLQuantizationType(kind.number)), np.float32)


def i2_s(raw: U8, shape: tuple[int, ...], what: str) -> QTensor:
    """The ternary type of bitnet.cpp as its x86 builds write it: all bytes of a tensor ``(N, K)`` → QTensor.

    A block is 128 weights in 32 bytes: byte ``j`` holds the codes of weights ``j, j + 32, j + 64, j + 96``, the first
    in its highest bits; 0, 1, 2 mean -1, 0, 1. Behind the blocks lies the scale of the whole tensor, a float32, filled
    up to 32 bytes. Source: ggml-bitnet-mad.cpp of microsoft/BitNet. Refused, with ``what`` it is, where a code is 3.
    """
    shifts = np.array([6, 4, 2, 0], np.uint8)[:, None]
    fields = (raw[:-32].reshape(-1, 1, 32) >> shifts) & np.uint8(3)
    if fields.max(initial=0) > 2:
        raise Refused(f"{what} holds codes of 3, which are no ternary weights.",
                      hint="the file is damaged, or was written by a build for another processor")  # fmt: skip
    scale = raw[-32:-28].view("<f4").reshape(1, 1)
    return from_codes(parse("ternary:tensor@f32"), fields.reshape(shape), scale)


def narrowest(values: F32) -> QTensor:
    """Float32 ``(N, K)`` → QTensor in f16 where that holds every value exactly, else in f32."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    exact = np.array_equal(half.astype(np.float32), values)
    return from_floats(parse("f16"), half) if exact else from_floats(parse("f32"), values)


def _half(blocks: U8, at: int) -> F16:
    return blocks[:, at : at + 2].copy().view("<f2")[:, 0]


def _nibbles(packed: U8) -> U8:
    """``(n, 16)`` bytes → ``(n, 32)``: the low nibbles, then the high ones."""
    codes = np.empty((packed.shape[0], 2, 16), np.uint8)
    np.bitwise_and(packed, 15, out=codes[:, 0])
    np.right_shift(packed, 4, out=codes[:, 1])
    return codes.reshape(-1, 32)


def _with_high_bits(packed: U8, high: U8) -> U8:
    codes = _nibbles(packed)
    codes |= np.unpackbits(high, axis=1, bitorder="little") << 4
    return codes


def _q4_0(b: U8) -> tuple[U8, F16, None]:
    return _nibbles(b[:, 2:]), _half(b, 0), None


def _q4_1(b: U8) -> tuple[U8, F16, F16]:
    return _nibbles(b[:, 4:]), _half(b, 0), _half(b, 2)


def _q5_0(b: U8) -> tuple[U8, F16, None]:
    return _with_high_bits(b[:, 6:], b[:, 2:6]), _half(b, 0), None


def _q5_1(b: U8) -> tuple[U8, F16, F16]:
    return _with_high_bits(b[:, 8:], b[:, 4:8]), _half(b, 0), _half(b, 2)


def _q8_0(b: U8) -> tuple[U8, F16, None]:
    # two's complement with the sign bit flipped is the value + 128
    return b[:, 2:] ^ np.uint8(128), _half(b, 0), None


def _mxfp4(b: U8) -> tuple[U8, U8, None]:
    codes = _nibbles(b[:, 1:])
    codes[codes == 8] = 0  # ggml has no -0
    return codes, b[:, 0].copy(), None


#: Trit ``i`` of a byte. The byte is ceil(256/243 · (81 t0 + 27 t1 + 9 t2 + 3 t3 + t4)): multiply, wrap, take the carry.
_TRITS = np.array([[(byte * 3**i % 256 * 3) >> 8 for byte in range(256)] for i in range(5)], np.uint8)


def _tq1_0(b: U8) -> tuple[U8, F16, None]:
    first = _TRITS[:, b[:, :32]].transpose(1, 0, 2).reshape(-1, 160)
    second = _TRITS[:, b[:, 32:48]].transpose(1, 0, 2).reshape(-1, 80)
    last = _TRITS[:4, b[:, 48:52]].transpose(1, 0, 2).reshape(-1, 16)
    return np.concatenate([first, second, last], axis=1), _half(b, 52), None


def _tq2_0(b: U8) -> tuple[U8, F16, None]:
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    fields = (b[:, :64].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)
    return fields.reshape(-1, 256), _half(b, 64), None


_FLOATS: dict[str, Literal["<f4", "<f2", "<u2"]] = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

TYPES: dict[int, BlockType] = {
    kind.number: kind
    for kind in (
        BlockType(0, "F32", 1, 4, parse("f32")),
        BlockType(1, "F16", 1, 2, parse("f16")),
        BlockType(2, "Q4_0", 32, 18, parse("int4:g32"), _q4_0),
        BlockType(3, "Q4_1", 32, 20, parse("int4z:g32"), _q4_1),
        BlockType(6, "Q5_0", 32, 22, parse("int5:g32"), _q5_0),
        BlockType(7, "Q5_1", 32, 24, parse("int5z:g32"), _q5_1),
        BlockType(8, "Q8_0", 32, 34, parse("int8:g32"), _q8_0),
        BlockType(9, "Q8_1", 32, 40, readable=False),
        BlockType(10, "Q2_K", 256, 84),
        BlockType(11, "Q3_K", 256, 110),
        BlockType(12, "Q4_K", 256, 144),
        BlockType(13, "Q5_K", 256, 176),
        BlockType(14, "Q6_K", 256, 210),
        BlockType(15, "Q8_K", 256, 292, readable=False),
        BlockType(16, "IQ2_XXS", 256, 66),
        BlockType(17, "IQ2_XS", 256, 74),
        BlockType(18, "IQ3_XXS", 256, 98),
        BlockType(19, "IQ1_S", 256, 50),
        BlockType(20, "IQ4_NL", 32, 18, parse("iq4nl:g32"), _q4_0),  # codes of another table in the same bytes
        BlockType(21, "IQ3_S", 256, 110),
        BlockType(22, "IQ2_S", 256, 82),
        BlockType(23, "IQ4_XS", 256, 136),
        BlockType(24, "I8", 1, 1, readable=False),
        BlockType(25, "I16", 1, 2, readable=False),
        BlockType(26, "I32", 1, 4, readable=False),
        BlockType(27, "I64", 1, 8, readable=False),
        BlockType(28, "F64", 1, 8, readable=False),
        BlockType(29, "IQ1_M", 256, 56),
        BlockType(30, "BF16", 1, 2, parse("bf16")),
        BlockType(34, "TQ1_0", 256, 54, parse("ternary:g256"), _tq1_0),
        BlockType(35, "TQ2_0", 256, 66, parse("ternary:g256"), _tq2_0),
        BlockType(36, "I2_S", 128, 32, parse("ternary:tensor@f32"), tail=32),
        BlockType(39, "MXFP4", 32, 17, parse("mxfp4"), _mxfp4),
        BlockType(40, "NVFP4", 64, 36),
        BlockType(41, "Q1_0", 128, 18, readable=False),
    )
}
