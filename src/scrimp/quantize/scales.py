"""Scales and mins as a file will hold them: rounded to their type, and always finite.

Codes are computed with these, never with the numbers they were rounded from: only then ``|w - ŵ| <= scale/2`` holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.tensors import DTYPES, Stored, from_f32, to_f32

F64 = NDArray[np.float64]

#: The largest finite value of each scale type; what lies beyond is clamped to it.
LARGEST: dict[str, float] = {"f16": 65504.0, "bf16": (2 - 2**-7) * 2.0**127, "f32": (2 - 2**-23) * 2.0**127}


def to_nearest(values: F64, kind: str) -> Stored:
    """Round to the nearest number of ``kind``, clamped to its finite range."""
    return from_f32(np.clip(values, -LARGEST[kind], LARGEST[kind]).astype(np.float32), kind)


def at_least(values: F64, kind: str) -> Stored:
    """The smallest number of ``kind`` that is not below ``values >= 0``, or the largest finite one. Zero stays zero.

    A scale rounded up clips nothing, and one that would underflow becomes the smallest number instead of 0.
    """
    values = np.minimum(values, LARGEST[kind])
    stored = to_nearest(values, kind)
    bits = _bits(stored)
    return (bits + (to_f32(stored, kind) < values).astype(bits.dtype)).view(DTYPES[kind])


def at_most(values: F64, kind: str) -> Stored:
    """The largest number of ``kind`` that is not above ``values``, or the lowest finite one."""
    values = np.maximum(values, -LARGEST[kind])
    stored = to_nearest(values, kind)
    rounded, bits = to_f32(stored, kind), _bits(stored)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    # Bits of a positive number grow with it, those of a negative one with its magnitude; below zero lies -smallest.
    below = np.where(rounded > 0, bits - 1, np.where(rounded < 0, bits + 1, sign | 1))
    return np.where(rounded > values, below, bits).astype(bits.dtype).view(DTYPES[kind])


def _bits(stored: Stored) -> NDArray[np.unsignedinteger]:
    return stored.view(np.uint32 if stored.itemsize == 4 else np.uint16)
