"""The tables of the coder: counts → one byte per level, which is stored → frequencies that sum to 2^14 exactly.

A byte is 0 where a level never occurs, 1 where it has the least frequency, and ``b ≥ 2`` stands for a weight of
``2^((b - 2) / 8)``. Everyone who decodes must find the same integers, so :func:`frequencies` uses no floats: eighths of
an octave are a table of integers.

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
#: Steps of a stored byte in an octave, and ``2^16 · 2^(i/8)`` for each.
_STEPS = 8
_EIGHTHS = np.array([65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194], np.int64)
#: The largest byte: ``2 + 8 log2(2^14)``; a stored one above it is malformed.
HIGHEST = 2 + _STEPS * _core.RANGE_BITS


def stored(counts: NDArray[Any]) -> U8:
    """Counts ``(tables, levels)``, each row with some count → the bytes, whose frequencies code them in the least."""
    share = counts / counts.sum(axis=-1, keepdims=True) * RANGE - 1.0  # one of 2^14 is given to every level that occurs
    steps = np.rint(_STEPS * np.log2(np.maximum(share, 2.0**-16)))
    return np.where(counts > 0, np.where(steps < 0, 1, steps + 2), 0).astype(np.uint8)


def frequencies(table: U8) -> NDArray[np.uint16]:
    """Bytes ``(tables, levels)``, each row with a level that occurs → frequencies that sum to 2^14, all ≥ 1.

    ``f = 1 + ⌊w (2^14 - n) / Σw⌋`` of the ``n`` levels that occur; what is left goes to the first of the heaviest.

    >>> frequencies(np.array([[0, 10, 2, 1]], np.uint8)).tolist()
    [[0, 10922, 5461, 1]]
    """
    octave, step = np.divmod(np.maximum(table.astype(np.int64) - 2, 0), _STEPS)
    weight = np.where(table >= 2, _EIGHTHS[step] << octave, 0)
    present = table > 0
    # a row of levels that are all the rarest shares the range evenly
    weight = np.where(weight.sum(-1, keepdims=True) == 0, present.astype(np.int64), weight)
    room = RANGE - present.sum(-1, keepdims=True)
    found = np.where(present, 1 + weight * room // weight.sum(-1, keepdims=True), 0)
    heaviest = weight.argmax(-1)
    found[np.arange(len(found)), heaviest] += RANGE - found.sum(-1)
    return found.astype(np.uint16)


def bits(counts: NDArray[Any], table: U8) -> float:
    """Bits that codes of these counts take under the table: ``Σ count · (14 - log2 f)``."""
    costs = _core.RANGE_BITS - np.log2(np.maximum(frequencies(table), 1))
    return float((counts * costs).sum())
