"""The scale of ternary and binary codes: both have a closed form, or nearly one."""

from __future__ import annotations

import numpy as np

from scrimp.formats.scale_types import to_nearest
from scrimp.quantize.blocks import Blocks
from scrimp.tensors import Stored

_AT_ONCE = 1 << 20


def absmean(blocks: Blocks, kind: str) -> Stored:
    """``mean|w|``: the rule of BitNet b1.58 for ternary codes, and the least squared error for binary ones.

    Source: Ma et al. 2024, arXiv:2402.17764, section 2; Rastegari et al. 2016, arXiv:1603.05279, section 3.1.
    """
    totals = blocks.totals(lambda w, t: np.abs(w, out=t).sum(axis=0)[None])
    return to_nearest(totals[0] / blocks.size, kind)


def best_ternary(blocks: Blocks, kind: str) -> Stored:
    """The scale of least squared error, exact before it is rounded to its type.

    If the ``j`` largest ``|w|`` of a block get codes ±1, their mean is the best scale and ``Σw² - (Σ_j|w|)²/j`` the
    error: one sort and prefix sums try every ``j``.
    """
    magnitudes = -np.sort(-blocks.magnitudes(), axis=1)
    carried = np.zeros(len(magnitudes))
    gain, scales = np.full(len(magnitudes), -1.0), np.zeros(len(magnitudes))
    step = max(1, _AT_ONCE // len(magnitudes))
    for start in range(0, magnitudes.shape[1], step):
        part = magnitudes[:, start : start + step]
        sums = np.cumsum(part, axis=1, dtype=np.float64) + carried[:, None]
        counts = np.arange(start + 1, start + part.shape[1] + 1)
        gains = sums * sums / counts
        at = np.arange(len(part)), gains.argmax(axis=1)
        better = gains[at] > gain
        gain[better] = gains[at][better]
        scales[better] = (sums[at] / counts[at[1]])[better]
        carried = sums[:, -1]
    return to_nearest(scales, kind)
