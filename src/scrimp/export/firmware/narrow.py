"""Offsets of a requantization in fewer bytes, with the same code for every sum a picture can make.

Lowering gives offsets all bits that fit. What they decide is on which side of ``j · 2^shift`` a multiple of the
multiplier lies, so each may move within an interval that is known exactly: to a multiple of ``2^q``, of which the
highest bits are stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scrimp.integer.program import I8, I32, INT32_HIGH, Product, Requantize

I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Narrow:
    """``offset`` of the channels is ``stored << shift``."""

    stored: I32
    shift: int


def narrow(by: Requantize, reach: I64) -> Narrow:
    """``reach`` (N,): no ``|sum >> pre|`` of the channel is larger. The fewest bytes, and of these the fewest zeros."""
    as_it_is = Narrow(by.offset, 0)
    if by.high == INT32_HIGH or by.offset.size == 1:
        return as_it_is
    multiplier = np.broadcast_to(by.multiplier, by.offset.shape).astype(np.int64)
    down, up = _freedom(by, multiplier, reach)
    best = as_it_is
    for q in range(1, 24):
        stored = -(-(by.offset - down) >> q)  # the first multiple that is not below
        moved = stored << q
        if (moved > by.offset + up).any() or int((np.abs(multiplier) * reach + np.abs(moved)).max()) > INT32_HIGH:
            break
        found = Narrow(stored.astype(np.int32), q)
        if width(found.stored) < width(best.stored):
            best = found
    return best


def upright(op: Product) -> Product:
    """Ternary and binary rows with a negative multiplier, and the multiplier, with the other sign: the products are the
    same, and multipliers that are all positive take a bit less. Not where bits are dropped before the multiplication.
    """
    by = op.requantize
    if by.pre or by.multiplier.size != len(op.weight) or np.abs(op.weight.astype(np.int64)).max(initial=0) > 1:
        return op
    sign = np.where(by.multiplier < 0, -1, 1)
    weight = (op.weight * sign[:, None]).astype(np.int8)
    return replace(op, weight=weight, requantize=replace(by, multiplier=(by.multiplier * sign).astype(np.int32)))


def rows_reach(weight: I8, pre: int) -> I64:
    """The most that ``|sum >> pre|`` of each row can be."""
    most: I64 = np.abs(weight.astype(np.int64)).sum(axis=1) * 128
    return np.asarray((most >> pre) + 1, np.int64)


def width(values: I32) -> int:
    """How numbers are stored: 0 where all are one; 2 uint16; 3 three bytes with a sign; 4 int32."""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return 0
    if low >= 0 and high < 1 << 16:
        return 2
    return 3 if low >= -(1 << 23) and high < 1 << 23 else 4


def stored_bytes(values: I32) -> int:
    """In flash."""
    return width(values) * values.size or 4


def _freedom(by: Requantize, multiplier: I64, reach: I64) -> tuple[I64, I64]:
    """How far each offset (N,) can go down and up before a sum within reach gets another code."""
    slope = np.maximum(np.abs(multiplier), 1)[:, None]
    most = np.where(multiplier == 0, 0, reach)[:, None]
    offset = by.offset.astype(np.int64)[:, None]
    edges = np.arange(by.low + 1, by.high + 1, dtype=np.int64)[None, :] << by.shift
    first = -((offset - edges) // slope)  # the first multiple of the slope that reaches the edge
    below, above = np.minimum(first - 1, most), np.maximum(first, -most)
    far = np.int64(1 << 40)
    up = np.where(below >= -most, edges - 1 - below * slope - offset, far).min(axis=1)
    down = np.where(above <= most, above * slope + offset - edges, far).min(axis=1)
    return np.minimum(down, far), np.minimum(up, far)
