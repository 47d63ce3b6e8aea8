"""Floating point: sign, exponent, fraction, and what the top codes mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import F64, Code, mirrored

#: ieee: the top exponent holds infinity and NaNs. fn: only the all-ones code is NaN. none: every code is a number.
#: fnuz: no negative zero, its code is the NaN. extended, finite: IEEE P3109 (draft), fnuz with and without infinities.
Specials = Literal["ieee", "fn", "none", "fnuz", "extended", "finite"]


@dataclass(frozen=True, slots=True)
class Float:
    """``(-1)^s 2^(e-bias) (1 + f/2^M)``; ``(-1)^s 2^(1-bias) f/2^M`` where ``e = 0``.

    ``saturate``: numbers above the largest, and infinity, become the largest (OCP's saturating conversion). Else they
    become infinity, or NaN where there is none; finite ones only from half a step above the largest on.

    >>> Float(4, 3, 7, "fn").code().largest, Float(2, 1, 1, "none").code().levels.tolist()
    (448.0, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    """

    exponent: int
    fraction: int
    bias: int
    specials: Specials
    saturate: bool = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.fraction

    def code(self) -> Code:
        return _code(self)


@cache
def _code(f: Float) -> Code:
    half = 1 << (f.bits - 1)
    numbers = _magnitudes(f, np.arange(half + 1, dtype=np.int64))
    magnitudes, values = numbers[:half].copy(), np.concatenate([numbers[:half], -numbers[:half]])
    finite, nan, infinity = half, half, None  # codes of the last number, of NaN and of infinity
    if f.specials == "ieee":
        finite = half - (1 << f.fraction)
        nan, infinity = half - 1, finite
        values[finite:half], values[half + finite :] = np.nan, np.nan
        values[finite], values[half + finite] = np.inf, -np.inf
    elif f.specials == "fn":
        finite, nan = half - 1, half - 1
        values[nan] = values[half + nan] = np.nan
    elif f.specials != "none":
        values[half] = np.nan
        if f.specials == "extended":
            finite, infinity = half - 1, half - 1
            values[infinity], values[half + infinity] = np.inf, -np.inf
    over = infinity if infinity is not None else nan
    saturate = f.saturate or f.specials == "none"
    return mirrored(
        f.bits,
        magnitudes[:finite],
        values,
        "sign",
        negative_zero=f.specials in ("ieee", "fn", "none"),
        nan=None if f.specials == "none" else nan,
        beyond=None if saturate else over,
        # ONNX's conversion table: a code without infinities and negative zero has no largest number for infinity.
        infinite=nan if f.specials in ("fnuz", "finite") else None if saturate else over,
        next_level=float(numbers[finite]),
    )


def _magnitudes(f: Float, codes: NDArray[np.int64]) -> F64:
    exponent, fraction = codes >> f.fraction, codes & (1 << f.fraction) - 1
    subnormal = np.ldexp(fraction.astype(np.float64), 1 - f.bias - f.fraction)
    normal = np.ldexp(((1 << f.fraction) + fraction).astype(np.float64), exponent - f.bias - f.fraction)
    found: F64 = np.where(exponent == 0, subnormal, normal)
    return found


@dataclass(frozen=True, slots=True)
class Exponent:
    """OCP's E8M0, the scale of microscaling formats: ``2^(code - 127)``; 255 is NaN; no sign and no zero.

    Rounding: nearest, ties up (as ml_dtypes and torch; no standard says). Zero and negative numbers become NaN.
    """

    bits: int = 8

    def code(self) -> Code:
        return _exponent_code(self.bits)


@cache
def _exponent_code(bits: int) -> Code:
    levels = np.ldexp(1.0, np.arange(2**bits - 1) - (2 ** (bits - 1) - 1))
    values = np.append(levels, np.nan)
    codes = np.arange(len(levels), dtype=np.uint8)
    thresholds = (levels[:-1] + levels[1:]) / 2
    return Code(bits, values, levels, codes, thresholds, np.zeros(len(levels), bool), "none",
                nan=2**bits - 1, negatives="nan", infinite=2**bits - 1)  # fmt: skip


def p3109(bits: int, precision: int, *, extended: bool) -> Float:
    """IEEE P3109 (draft) ``KkPp``, signed; ``extended`` has infinities. Source: arXiv 2606.04028."""
    exponent = bits - precision
    return Float(
        exponent, precision - 1, 1 << (exponent - 1), "extended" if extended else "finite", saturate=not extended
    )
