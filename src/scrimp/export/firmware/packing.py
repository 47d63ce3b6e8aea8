"""How the weights of a product lie in flash: one Packing for each kernel of the runtime, and its exact inverse.

Rows are outputs ``n``, columns inputs ``k``. Packings that end in tables are *group-major*: all rows of the first group
of inputs, then all rows of the next, since a table of partial sums of these inputs serves every row.

====  ===============================================================  ==========  =====================
name  layout                                                           bits        levels
====  ===============================================================  ==========  =====================
W8    int8, a row after the other                                      8           −128 … 127
W4    u32 of two rows × 4 inputs: row 2i in the low half, 2i + 1 in    4           −8 … 7, code = w + 8
      the high half, input j in bits 4j … 4j + 3 of its half
T2    u32 of two rows × 8 inputs, the same in 2 bits                   2           −2 … 1, code = w + 2
T5    u8 of 5 trits, code = Σ (w + 1) 3^j; group-major                 1.6         −1, 0, 1
T19   u32 of 19 trits: five codes of 3 trits in bits 5i … 5i + 4 and   1.684       −1, 0, 1
      one of 4 trits in bits 25 … 31; group-major
B1    u32 of 32 signs, input j in bit j, 1 is +1; group-major          1           −1, 1
P2 …  planes of bits of the two's complement, the highest first, each  2, 4, 8     two's complement
P8    laid out like B1 where 1 is 1 and 0 is 0
====  ===============================================================  ==========  =====================

What is beyond the last input or row has weight 0 (of B1: code 0, and the input there is 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.integer.program import I8

#: What lies in flash: int8, uint8 or uint32.
Words = NDArray[Any]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packing:
    """``pack`` takes ``(N, K)`` and gives the words in order; ``unpack`` takes these, N and K."""

    name: str
    low: int
    high: int
    group: int  #: inputs that share a word of a row
    pack: Callable[[I8], Words]
    unpack: Callable[[Words, int, int], I8]
    word: int  #: bytes of a word, of all planes
    rows: int = 1  #: … and the rows it holds
    tables: int = 0  #: int16 numbers in RAM, of the partial sums of a group
    inputs: int = 1 << 31  #: with more, a number on the way could leave 32 bits though the sum does not

    def bytes(self, n: int, k: int) -> int:
        """In flash, of ``(n, k)`` weights."""
        return self.word * -(-n // self.rows) * -(-k // self.group)

    def holds(self, weight: I8) -> bool:
        """Whether every weight is one of its levels."""
        if weight.shape[1] > self.inputs:
            return False
        if self.name == "B1":
            return bool((np.abs(weight) == 1).all())
        return bool(weight.min(initial=self.high) >= self.low and weight.max(initial=self.low) <= self.high)


def _padded(weight: I8, rows: int, columns: int) -> I64:
    """To multiples of ``rows`` and ``columns``."""
    n, k = weight.shape
    wide = weight.astype(np.int64)
    return np.pad(wide, ((0, -n % rows), (0, -k % columns)), constant_values=0)


def _pack_w8(weight: I8) -> Words:
    return weight.astype(np.int8).reshape(-1)


def _unpack_w8(words: Words, n: int, k: int) -> I8:
    return words.reshape(n, k).astype(np.int8)


def _pack_pairs(weight: I8, bits: int) -> Words:
    per_word = 16 // bits
    codes = _padded(weight, 2, per_word) + (1 << bits - 1)
    n = len(codes)
    halves: I64 = (codes.reshape(n, -1, per_word) << bits * np.arange(per_word)).sum(axis=2)
    return (halves[0::2] | halves[1::2] << 16).astype(np.uint32).reshape(-1)


def _unpack_pairs(words: Words, n: int, k: int, bits: int) -> I8:
    per_word = 16 // bits
    pairs = words.astype(np.int64).reshape((n + 1) // 2, 1, -1, 1) >> np.array([0, 16]).reshape(1, 2, 1, 1)
    codes = pairs >> bits * np.arange(per_word) & (1 << bits) - 1
    found: I64 = codes.reshape(2 * ((n + 1) // 2), -1)[:n, :k] - (1 << bits - 1)
    return found.astype(np.int8)


def _pack_t5(weight: I8) -> Words:
    digits = _padded(weight, 1, 5) + 1
    codes: I64 = (digits.reshape(len(weight), -1, 5) * 3 ** np.arange(5)).sum(axis=2)
    return codes.T.astype(np.uint8).reshape(-1)


def _unpack_t5(words: Words, n: int, k: int) -> I8:
    codes = words.astype(np.int64).reshape(-1, n).T[:, :, None]
    found: I64 = (codes // 3 ** np.arange(5) % 3 - 1).reshape(n, -1)[:, :k]
    return found.astype(np.int8)


#: Of a word of 19 trits: what each is worth, and by how much its code is shifted.
_T19_DIGIT = np.array([3**i for _ in range(5) for i in range(3)] + [1, 3, 9, 27])
_T19_SHIFT = np.array([5 * c for c in range(5) for _ in range(3)] + [25] * 4)


def _pack_t19(weight: I8) -> Words:
    digits = (_padded(weight, 1, 19) + 1).reshape(len(weight), -1, 19)
    words: I64 = (digits * _T19_DIGIT << _T19_SHIFT).sum(axis=2).T
    return words.astype(np.uint32).reshape(-1)


def _unpack_t19(words: Words, n: int, k: int) -> I8:
    shifted = words.astype(np.int64).reshape(-1, n).T[:, :, None] >> _T19_SHIFT
    codes = shifted & np.where(_T19_SHIFT == 25, 127, 31)
    found: I64 = (codes // _T19_DIGIT % 3 - 1).reshape(n, -1)[:, :k]
    return found.astype(np.int8)


def _pack_bits(bits: I64) -> Words:
    """(N, K) of 0 and 1, K a multiple of 32."""
    words: I64 = (bits.reshape(len(bits), -1, 32) << np.arange(32)).sum(axis=2).T
    return words.astype(np.uint32).reshape(-1)


def _unpack_bits(words: Words, n: int, k: int) -> I64:
    bits = words.astype(np.int64).reshape(-1, n).T[:, :, None] >> np.arange(32) & 1
    return bits.reshape(n, -1)[:, :k]


def _pack_b1(weight: I8) -> Words:
    return _pack_bits((_padded(weight, 1, 32) > 0).astype(np.int64))


def _unpack_b1(words: Words, n: int, k: int) -> I8:
    return (2 * _unpack_bits(words, n, k) - 1).astype(np.int8)


def _pack_planes(weight: I8, bits: int) -> Words:
    codes = _padded(weight, 1, 32)
    return np.concatenate([_pack_bits(codes >> bit & 1) for bit in reversed(range(bits))])


def _unpack_planes(words: Words, n: int, k: int, bits: int) -> I8:
    planes = [_unpack_bits(plane, n, k) for plane in np.split(words, bits)]
    value = -planes[0]
    for plane in planes[1:]:
        value = 2 * value + plane
    return value.astype(np.int8)


def _planes(bits: int) -> Packing:
    half = 1 << bits - 1
    return Packing(
        f"P{bits}",
        -half,
        half - 1,
        32,
        partial(_pack_planes, bits=bits),
        partial(_unpack_planes, bits=bits),
        4 * bits,
        tables=128,
        inputs=1 << 23 - bits,
    )


PACKINGS: dict[str, Packing] = {
    packing.name: packing
    for packing in (
        Packing("W8", -128, 127, 1, _pack_w8, _unpack_w8, 1),
        Packing("W4", -8, 7, 4, partial(_pack_pairs, bits=4), partial(_unpack_pairs, bits=4), 4, 2, inputs=1 << 20),
        Packing("T2", -2, 1, 8, partial(_pack_pairs, bits=2), partial(_unpack_pairs, bits=2), 4, 2, inputs=1 << 22),
        Packing("T5", -1, 1, 5, _pack_t5, _unpack_t5, 1, tables=243),
        Packing("T19", -1, 1, 19, _pack_t19, _unpack_t19, 4, tables=5 * 27 + 81),
        Packing("B1", -1, 1, 32, _pack_b1, _unpack_b1, 4, tables=128, inputs=1 << 22),
        *map(_planes, (2, 4, 8)),
    )
}
