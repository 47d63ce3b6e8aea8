"""Posits: two's complement, a run-length coded exponent, and a fraction that takes the bits that are left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from scrimp.formats.code import F64, Code, mirrored


@dataclass(frozen=True, slots=True)
class Posit:
    """``posit(n, es)``: a run of ``k`` equal regime bits, ``es`` exponent bits, the rest fraction::

        value = 2^(2^es · regime + exponent) · (1 + fraction)        regime = run of ones - 1, or -(run of zeros)
        logarithmic (ELMA): 2^(2^es · regime + exponent + fraction)

    Rounding is to nearest *on the bit string*: thresholds are the odd codes of the posit one bit longer, which for the
    outermost codes are no midpoints. Never to zero, never beyond the largest; NaN and infinity become NaR, ``10…0``.
    Source: Posit Standard (2022), section 4; Johnson 2018, arXiv:1811.01721, for the logarithmic kind.

    >>> Posit(8, 0).code().largest, Posit(8, 2).code().min_positive == 2.0**-24
    (64.0, True)
    """

    bits: int
    es: int
    logarithmic: bool = False

    def code(self) -> Code:
        return _code(self)


@cache
def _code(p: Posit) -> Code:
    magnitudes = _magnitudes(p.bits, p.es, p.logarithmic)
    nar = 1 << (p.bits - 1)
    values = np.concatenate([magnitudes, [np.nan], -magnitudes[:0:-1]])
    thresholds = _magnitudes(p.bits + 1, p.es, p.logarithmic)[1::2].copy()
    thresholds[0] = 0.0  # anything above zero becomes the smallest number; zero itself, a tie, has the even code
    return mirrored(p.bits, magnitudes, values, "complement", thresholds=thresholds[:-1], nan=nar, infinite=nar)


def _magnitudes(bits: int, es: int, logarithmic: bool) -> F64:
    """The numbers of codes ``0 … 2^(bits-1) - 1``."""
    return np.array([0.0, *(_value(code, bits, es, logarithmic) for code in range(1, 1 << (bits - 1)))])


def _value(code: int, bits: int, es: int, logarithmic: bool) -> float:
    body = bits - 1
    first = code >> (body - 1) & 1
    run = 1
    while run < body and code >> (body - 1 - run) & 1 == first:
        run += 1
    regime = run - 1 if first else -run
    left = max(0, body - run - 1)  # bits after the regime and the bit that ends it
    tail = code & ((1 << left) - 1)
    cut = max(0, es - left)  # exponent bits that did not fit are zeros
    exponent = tail >> (left - es) if cut == 0 else tail << cut
    fraction_bits = max(0, left - es)
    fraction = (tail & ((1 << fraction_bits) - 1)) / (1 << fraction_bits)
    power = (regime << es) + exponent
    return 2.0 ** (power + fraction) if logarithmic else float(np.ldexp(1 + fraction, power))
