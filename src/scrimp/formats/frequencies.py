"""The tables of the coder: counts → one byte per level, which is stored → frequencies that sum to 2^14 exactly.

A byte is 0 where a level never occurs, 1 where it has the least frequency, and ``b ≥ 2`` stands for a weight of
``2^((b - 2) / 8)``; core/coding/rans.h has the rule, in integers, since everyone who decodes must find the same.

A weight is off by up to 1/16 octave, which costs half the variance of its logarithm: 0.0005 bits per code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import _core

U8 = NDArray[np.uint8]
#: What the frequencies of a table sum to.
RANGE = 1 << _core.RANGE_BITS
#: The largest byte; a stored one above it is malformed.
HIGHEST = _core.HIGHEST_BYTE
_STEPS = 8  # of a stored byte in an octave


def stored(counts: NDArray[Any]) -> U8:
    """Counts ``(tables, levels)``, each row with some count → the bytes, whose frequencies code them in the least."""
    share = counts / counts.sum(axis=-1, keepdims=True) * RANGE - 1.0  # one of 2^14 is given to every level that occurs
    steps = np.rint(_STEPS * np.log2(np.maximum(share, 2.0**-16)))
    return np.where(counts > 0, np.where(steps < 0, 1, steps + 2), 0).astype(np.uint8)


def frequencies(table: U8) -> NDArray[np.uint16]:
    """Bytes ``(tables, levels)`` → frequencies that sum to 2^14, all ≥ 1 of levels that occur; ValueError for others.

    >>> frequencies(np.array([[0, 10, 2, 1]], np.uint8)).tolist()
    [[0, 10922, 5461, 1]]
    """
    return _core.frequencies(table)


def bits(counts: NDArray[Any], table: U8) -> float:
    """Bits that codes of these counts take under the table: ``Σ count · (14 - log2 f)``."""
    costs = _core.RANGE_BITS - np.log2(np.maximum(frequencies(table), 1))
    return float((counts * costs).sum())
