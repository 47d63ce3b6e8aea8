"""How scales and mins are stored: their types, the bytes of each, and rounding that never clips or never rises.

``e8m0`` holds powers of two. ``e4m3`` and the integers ``u4 u6 i6 i8`` are relative to a second scale: of the tensor,
the row or a super-block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.formats import lookup
from scrimp.formats.code import F64
from scrimp.formats.floats import Float

F32 = NDArray[np.float32]
Stored = NDArray[np.generic]

#: NumPy has no bfloat16: its bits are kept in uint16. Scales of 8 bits and fewer are codes in uint8.
DTYPES: dict[str, np.dtype[np.generic]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "e8m0": np.dtype(np.uint8),
    "e4m3": np.dtype(np.uint8),
    "u4": np.dtype(np.uint8),
    "u6": np.dtype(np.uint8),
    "i6": np.dtype(np.int8),
    "i8": np.dtype(np.int8),
    "tf32": np.dtype(np.float32),
}

#: The largest finite value of each scale type; what lies beyond is clamped to it.
LARGEST: dict[str, float] = {
    "f16": 65504.0, "bf16": (2 - 2**-7) * 2.0**127, "f32": (2 - 2**-23) * 2.0**127,
    "e8m0": 2.0**127, "e4m3": 448.0, "u4": 15.0, "u6": 63.0, "i6": 31.0, "i8": 127.0,
}  # fmt: skip
#: Ends of the integers.
RANGES = {"u4": (0, 15), "u6": (0, 63), "i6": (-32, 31), "i8": (-128, 127)}

_E4M3 = Float(4, 3, 7, "fn")
_EXPONENTS = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan)).astype(np.float32)


def to_f32(values: Stored, kind: str) -> F32:
    """Stored floats of ``kind`` (bf16 as uint16, 8-bit types as codes) → float32, exactly."""
    if kind == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if kind == "e8m0":
        return _EXPONENTS[values.astype(np.uint8)]
    if kind == "e4m3":
        return _E4M3.code().values.astype(np.float32)[values.astype(np.uint8)]
    return values.astype(np.float32, copy=False)


def from_f32(values: F32, kind: str) -> Stored:
    """float32 → ``kind``, rounded to nearest even; out of range becomes infinity (f16, bf16) or saturates.

    A power of two (e8m0) is the nearest one, ties up; zero and what is below the smallest become 2^-127.
    """
    if kind == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)
    if kind == "e8m0":
        fraction, exponent = np.frexp(values)
        return exponent_code(exponent - 1 + (fraction >= 0.75), values)
    if kind == "e4m3":
        return lookup.encode(_E4M3.code(), values)
    if kind in ("u4", "u6"):
        return np.clip(np.rint(np.nan_to_num(values)), 0, LARGEST[kind]).astype(np.uint8)
    with np.errstate(over="ignore"):
        return values.astype(DTYPES[kind])


def divisor(scales: F32) -> F32:
    """What weights are divided by: the scale, or infinity where it is 0, so that the code is the one of zero."""
    return np.where(scales == 0, np.float32(np.inf), scales).astype(np.float32, copy=False)


def exponent_code(exponents: NDArray[Any], of: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """E8M0 codes of ``2^exponents``, clamped to -127 … 127: -127 where ``of`` is 0, NaN where it is not finite."""
    codes = np.where(of == 0, 0, np.clip(exponents.astype(np.int64) + 127, 0, 254))
    return np.where(np.isfinite(of), codes, 255).astype(np.uint8)


def to_nearest(values: F64, kind: str) -> Stored:
    """Round to the nearest number of ``kind``, clamped to its finite range; NaN stays NaN."""
    return from_f32(np.clip(values, -LARGEST[kind], LARGEST[kind]).astype(np.float32), kind)


def at_least(values: F64, kind: str) -> Stored:
    """The smallest number of ``kind`` that is not below ``values >= 0``, or the largest finite one. Zero stays zero.

    A scale rounded up clips nothing, and one that would underflow becomes the smallest number instead of 0.
    """
    values = np.minimum(values, LARGEST[kind])
    stored = to_nearest(values, kind)
    bits = _bits(stored)
    with np.errstate(invalid="ignore"):
        return (bits + (to_f32(stored, kind) < values).astype(bits.dtype)).view(DTYPES[kind])


def at_most(values: F64, kind: str) -> Stored:
    """The largest number of ``kind`` (a float) that is not above ``values``, or the lowest finite one."""
    values = np.maximum(values, -LARGEST[kind])
    stored = to_nearest(values, kind)
    rounded, bits = to_f32(stored, kind), _bits(stored)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    # Bits of a positive number grow with it, those of a negative one with its magnitude; below zero lies -smallest.
    below = np.where(rounded > 0, bits - 1, np.where(rounded < 0, bits + 1, sign | 1))
    return np.where(rounded > values, below, bits).astype(bits.dtype).view(DTYPES[kind])


def _bits(stored: Stored) -> NDArray[np.unsignedinteger[Any]]:
    return stored.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[stored.itemsize])
