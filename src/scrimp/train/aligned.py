"""The original's weights as a store has them that scaled channels before it rounded (awq, smoothquant, waterfill)."""

from __future__ import annotations

import numpy as np

from scrimp.formats.code import F64
from scrimp.tensors import F32

#: Rounds of fitting rows given columns and columns given rows; the first two do nearly all of it.
ROUNDS = 4
#: Where no channel's factor is more standard errors from 1, nothing was scaled: what was found is noise.
ERRORS = 6.0


def aligned(original: F32, stored: F32) -> F32:
    """``diag(a) W diag(b)`` nearest to the rounded ``Ŵ``, W the original; W itself where no channel was scaled.

    What is folded into the operation before a layer is not kept anywhere, but its hundreds of weights per channel tell
    it well: with a relative rounding error of e per weight, a factor is found to e/√K.

    Shapes
        both (N, K)
    """
    w, made = original.astype(np.float64), stored.astype(np.float64)
    rows, cols = np.ones(w.shape[0]), np.ones(w.shape[1])
    for _ in range(ROUNDS):
        cols = _factors(made, w * rows[:, None], axis=0)
        rows = _factors(made, w * cols, axis=1)
    middle = np.median(cols)
    rows, cols = rows * middle, cols / middle
    fit = rows[:, None] * w * cols
    noise = ERRORS * float(np.linalg.norm(made - fit) / (np.linalg.norm(made) or 1.0))
    if np.abs(rows - 1).max() < noise / np.sqrt(len(cols)) and np.abs(cols - 1).max() < noise / np.sqrt(len(rows)):
        return original
    return np.asarray(fit, np.float32)


def _factors(made: F64, w: F64, axis: int) -> F64:
    """The least-squares factor of every column (axis 0) or row; 1 where a channel is zero or would change its sign."""
    norms = np.square(w).sum(axis=axis)
    found = np.divide((made * w).sum(axis=axis), norms, out=np.ones(len(norms)), where=norms > 0)
    return np.where(found > 0, found, 1.0)
