"""Logarithmic numbers: a product is an addition of codes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from scrimp.formats.code import Code, mirrored


@dataclass(frozen=True, slots=True)
class Log:
    """Sign and ``b-1`` bits ``c``: ``2^((c - 2^(b-2)) / 2^F)``; code 0 is zero.

    Rounding is to the nearest logarithm, so thresholds are geometric means: no number between the smallest and the
    largest is off by more than a factor of ``2^(2^-(F+1))``. Below half of the smallest is zero; the largest saturates.

    >>> Log(8, 4).code().largest == 2 ** (63 / 16)
    True
    """

    bits: int
    fraction: int

    def code(self) -> Code:
        return _code(self)


@cache
def _code(log: Log) -> Code:
    half = 1 << (log.bits - 1)
    magnitudes = np.exp2((np.arange(half) - half // 2) / 2**log.fraction)
    magnitudes[0] = 0.0
    thresholds = np.sqrt(magnitudes[:-1] * magnitudes[1:])
    thresholds[0] = magnitudes[1] / 2
    return mirrored(log.bits, magnitudes, np.concatenate([magnitudes, -magnitudes]), "sign", thresholds=thresholds)
