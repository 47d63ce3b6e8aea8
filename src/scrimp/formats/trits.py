"""Trits in memory: the ways to pack numbers of three values, and what each costs once rows must be aligned.

::

    fields      1 trit  in  2 bits    2.000 b/trit   shift and mask
    fives       5 trits in  8 bits    1.600          3^5 = 243 of 256; a table, or the multiplication below; in tiles
    threes      3 trits in  5 bits    1.667          3^3 = 27 of 32; groups straddle bytes
    tens       10 trits in 16 bits    1.600          3^10 = 59,049 of 65,536; the same as two bytes, in half the lookups
    positions   1 + nonzeros bytes per 128 trits: a count, then place + 128·(negative); pays below 19 % nonzeros

Entropy of equally likely trits: log2 3 = 1.585 bits. Codes are 0, 1, 2 for -1, 0, 1, as everywhere in this package.
Multiplicative bytes (llama.cpp's TQ1_0): ``byte = ceil(v·256/243)`` of ``v = Σ trit_i·3^(4-i)``; then
``trit_i = ((byte·3^i mod 256)·3) >> 8``, with no table and no division.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused

U8 = NDArray[np.uint8]
#: Trits that one position list covers: places of 7 bits leave one for the sign.
POSITION_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Packing:
    """``trits`` of them in ``bits`` bits, as a number in base three; units follow bit by bit, low bits first."""

    name: str
    trits: int
    bits: int

    @property
    def bits_per_trit(self) -> float:
        return self.bits / self.trits

    @property
    def efficiency(self) -> float:
        """Information over space: ``log2 3`` over the bits per trit."""
        return float(np.log2(3)) / self.bits_per_trit

    def row_bytes(self, count: int, alignment: int = 1) -> int:
        """Bytes of a row of ``count`` trits: whole units, whole bytes, then whole multiples of ``alignment`` bytes.

        >>> PACKINGS["fives"].row_bytes(4096, 64) * 8 / 4096, PACKINGS["threes"].row_bytes(4096, 64) * 8 / 4096
        (1.625, 1.75)
        """
        nbytes = -(-(-(-count // self.trits) * self.bits) // 8)
        return -(-nbytes // alignment) * alignment

    def pack(self, codes: U8) -> U8:
        """Codes ``(n,)`` → bytes; a last unit that is not full is padded with trit 1, the zero."""
        padded = np.pad(codes, (0, -codes.size % self.trits), constant_values=1).reshape(-1, self.trits)
        units = padded.astype(np.uint32) @ (3 ** np.arange(self.trits, dtype=np.uint32))
        if self.bits == 8:
            return units.astype(np.uint8)
        bits = (units[:, None] >> np.arange(self.bits, dtype=np.uint32) & 1).astype(np.uint8)
        return np.packbits(bits.reshape(-1), bitorder="little")

    def unpack(self, packed: U8, count: int) -> U8:
        """The inverse, for ``count`` trits. Refused where a unit holds a number that no trits make."""
        units_needed = -(-count // self.trits)
        bits = np.unpackbits(packed, bitorder="little")[: units_needed * self.bits].reshape(units_needed, self.bits)
        units = bits.astype(np.uint32) @ (1 << np.arange(self.bits, dtype=np.uint32))
        digits = units[:, None] // 3 ** np.arange(self.trits, dtype=np.uint32)
        if (self.trits > 1 and (units >= 3**self.trits).any()) or (digits[:, -1] > 2).any():
            raise Refused(
                f"A unit of {self.bits} bits holds more than {self.trits} trits can.", hint="the data is damaged"
            )
        return (digits % 3).astype(np.uint8).reshape(-1)[:count]


PACKINGS = {
    p.name: p
    for p in (Packing("fields", 1, 2), Packing("fives", 5, 8), Packing("threes", 3, 5), Packing("tens", 10, 16))
}


def pack_positions(codes: U8) -> U8:
    """Codes ``(n,)`` → for every 128 trits the number of nonzeros, then one byte each: place, plus 128 for -1."""
    out: list[U8] = []
    for at in range(0, codes.size, POSITION_BLOCK):
        block = codes[at : at + POSITION_BLOCK]
        places = np.flatnonzero(block != 1)
        out += [np.array([places.size], np.uint8), (places + 128 * (block[places] == 0)).astype(np.uint8)]
    return np.concatenate(out) if out else np.empty(0, np.uint8)


def unpack_positions(packed: U8, count: int) -> U8:
    """The inverse, for ``count`` trits; Refused when lists end early, repeat a place or name one outside."""
    codes, at = np.ones(count, np.uint8), 0
    for start in range(0, count, POSITION_BLOCK):
        size = min(POSITION_BLOCK, count - start)
        listed = packed[at + 1 : at + 1 + int(packed[at])] if at < packed.size else packed[:0]
        places = listed & 127
        if (
            at >= packed.size
            or listed.size < packed[at]
            or (np.diff(places.astype(int)) <= 0).any()
            or (places >= size).any()
        ):
            raise Refused(f"The position list of trits {start:,} … is malformed.", hint="the data is damaged")
        codes[start + places.astype(np.int64)] = np.where(listed > 127, 0, 2)
        at += 1 + listed.size
    if at != packed.size:
        raise Refused(f"{packed.size - at:,} bytes follow the last position list.", hint="the data is damaged")
    return codes


def position_bytes(count: int, nonzeros: int) -> int:
    """Bytes of the position lists of ``count`` trits, ``nonzeros`` of them not zero; nothing needs aligning."""
    return -(-count // POSITION_BLOCK) + nonzeros


def breakeven_density(bits_per_trit: float = 1.6) -> float:
    """The share of nonzeros below which position lists are smaller than ``bits_per_trit``: 19.2 % for five in a byte.

    >>> round(breakeven_density(), 4)
    0.1922
    """
    return bits_per_trit / 8 - 1 / POSITION_BLOCK


def multiplicative(byte_values: NDArray[np.integer]) -> U8:
    """Numbers ``0 … 242`` (five trits, the first the highest digit) → TQ1_0's bytes."""
    return ((byte_values.astype(np.uint16) * 256 + 242) // 243).astype(np.uint8)


def multiplicative_trit(packed: U8, i: int) -> U8:
    """Trit ``i`` (0 the highest digit) of TQ1_0's bytes."""
    shifted = packed * np.uint8(3**i)
    return (shifted.astype(np.uint16) * 3 >> 8).astype(np.uint8)
