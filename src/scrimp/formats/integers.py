"""Integers and fixed point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from scrimp.formats.code import Code, listed, mirrored


@dataclass(frozen=True, slots=True)
class Integer:
    """Code ``c`` means ``step * c - zero``: offset binary, which is what the kernels multiply. Ties go to even numbers.

    ``int4`` is 0 … 15 with zero 8, that is -8 … 7; ``uint8`` has zero 0; the restricted ``int4r`` 0 … 14 with zero 7.
    """

    bits: int
    count: int
    zero: int
    step: int = 1

    def code(self) -> Code:
        return _offset_code(self)


@cache
def _offset_code(i: Integer) -> Code:
    numbers = i.step * np.arange(i.count) - i.zero
    even = numbers % 2 == 0 if i.step == 1 else np.arange(i.count) == i.count - 1
    return listed(i.bits, numbers.astype(np.float64), even=even)


@dataclass(frozen=True, slots=True)
class Fixed:
    """Fixed point with ``fraction`` bits behind the point.

    ``twos``: two's complement, ``-2^(b-1) … 2^(b-1) - 1`` steps; ``magnitude``: a sign bit and ``b-1`` bits, two zeros.

    >>> Fixed(8, 6, "twos").code().smallest, Fixed(8, 6, "twos").code().largest
    (-2.0, 1.984375)
    """

    bits: int
    fraction: int
    kind: Literal["twos", "magnitude"]

    def code(self) -> Code:
        return _fixed_code(self)


@cache
def _fixed_code(f: Fixed) -> Code:
    half = 1 << (f.bits - 1)
    magnitudes = np.ldexp(np.arange(half, dtype=np.float64), -f.fraction)
    if f.kind == "magnitude":
        return mirrored(f.bits, magnitudes, np.concatenate([magnitudes, -magnitudes]), "sign", negative_zero=True)
    negatives = np.ldexp(np.arange(-half, 0, dtype=np.float64), -f.fraction)
    return listed(f.bits, np.concatenate([magnitudes, negatives]))
