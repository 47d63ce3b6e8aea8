"""``factor · sum + bias`` as multiplications of int32: with as many bits as fit, and how far they are off.

``((sum >> pre) · M + O) >> shift`` stands for ``round(factor · sum + bias)``: ``M ≈ factor · 2^(shift + pre)`` and
``O ≈ bias · 2^shift + 2^(shift - 1) + M (1 - 2^-pre) / 2``; the last term is what ``>> pre`` takes away on average.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from scrimp.errors import Refused
from scrimp.integer.program import INT32_HIGH, INT32_LOW, Requantize
from scrimp.integer.weights import F64

#: A multiplier has no more bits: codes have eight, a chip stores multipliers in two bytes, and one without a product
#: takes time for each of their bits.
_MULTIPLIER = (1 << 16) - 1


def to_codes(name: str, factor: F64, bias: F64, largest: int, low: int, high: int) -> Requantize:
    """Sums of at most ``largest`` → codes. ``factor`` and ``bias`` (N,) in codes, in float64.

    Error
        before it is rounded down, the value is off by at most :func:`error`, which is less than ``2^-14`` of
        ``max(|factor| · largest + |bias|) + 1``: ``largest >> pre`` and ``M`` share 31 bits, ``M`` at most 16 of them.
        Refused where one of these values alone leaves 32 bits.
    """
    shifts = range(31, -1, -1)
    tried = [_most_bits(factor, bias, largest, pre, shifts, _MULTIPLIER) for pre in range(32)]
    found = [by for by in tried if by is not None]
    if not found:
        raise Refused(f"{name} makes values of {_reach(factor, bias, largest):.3g} steps, which leave 32 bits.",
                      hint="its step is far too small for its weights, gain and bias")  # fmt: skip
    best = min(found, key=lambda by: float(error(by, factor, bias, largest).max()))
    return Requantize(best.multiplier, best.offset, best.pre, best.shift, low, high)


def to_logits(factor: F64, bias: F64, largest: int) -> tuple[Requantize, int]:
    """Sums → logits in units of ``2^-bits``, the same for all classes and as small as 32 bits allow; and ``bits``."""
    found = [_most_logit_bits(factor, bias, largest, pre) for pre in range(32)]

    def off(candidate: tuple[Requantize, int]) -> float:
        by, bits = candidate
        return float(np.ldexp(error(by, np.ldexp(factor, bits), np.ldexp(bias, bits), largest).max(), -bits))

    return min(found, key=off)


def error(by: Requantize, factor: F64, bias: F64, largest: int) -> F64:
    """How far ``((sum >> pre) · M + O) / 2^shift`` can be from ``factor · sum + bias`` and half a code (N,).

    ``M`` off by d: ``d · |sum >> pre|``; bits dropped before: ``|M| (1 - 2^-pre) / 2``; and what ``O`` is off.
    """
    multiplier, offset = by.multiplier.astype(np.float64), by.offset.astype(np.float64)
    dropped = (1 - 2.0**-by.pre) / 2
    exact = np.ldexp(bias, by.shift) + _half(by.shift) + multiplier * dropped
    off = np.abs(multiplier - np.ldexp(factor, by.shift + by.pre)) * ((largest >> by.pre) + 1)
    return np.asarray(np.ldexp(off + np.abs(multiplier) * dropped + np.abs(offset - exact), -by.shift))


def _most_bits(
    factor: F64, bias: F64, largest: int, pre: int, shifts: Iterable[int], most: int = INT32_HIGH
) -> Requantize | None:
    """``most``: of a multiplier."""
    for shift in shifts:
        by = _rounded(factor, bias, pre, shift)
        if by is not None and _fits(by, largest) and int(np.abs(by.multiplier.astype(np.int64)).max()) <= most:
            return by
    return None


def _most_logit_bits(factor: F64, bias: F64, largest: int, pre: int) -> tuple[Requantize, int]:
    reach = _reach(factor, bias, largest)
    bits = 32 - math.floor(math.log2(reach)) if reach else 0
    while (by := _most_bits(np.ldexp(factor, bits), np.ldexp(bias, bits), largest, pre, [0])) is None:
        bits -= 1  # to 0, which fits, in the end
    return by, bits


def _rounded(factor: F64, bias: F64, pre: int, shift: int) -> Requantize | None:
    """The nearest multiplier and offset, of one element where all are alike; None where they are not int32."""
    multiplier = np.rint(np.ldexp(factor, shift + pre))
    offset = np.rint(np.ldexp(bias, shift) + _half(shift) + multiplier * ((1 - 2.0**-pre) / 2))
    if max(np.abs(multiplier).max(), np.abs(offset).max()) > INT32_HIGH:
        return None
    if (multiplier == multiplier[0]).all() and (offset == offset[0]).all():
        multiplier, offset = multiplier[:1], offset[:1]
    return Requantize(multiplier.astype(np.int32), offset.astype(np.int32), pre, shift, INT32_LOW, INT32_HIGH)


def _fits(by: Requantize, largest: int) -> bool:
    most = np.abs(by.multiplier.astype(np.int64)) * ((largest >> by.pre) + 1) + np.abs(by.offset.astype(np.int64))
    return int(most.max()) <= INT32_HIGH


def _half(shift: int) -> float:
    return 2.0 ** (shift - 1) if shift else 0.0


def _reach(factor: F64, bias: F64, largest: int) -> float:
    return float((np.abs(factor) * largest + np.abs(bias)).max())
