"""Where a block is clipped: by the Newton iteration of OCTAV, or at a percentile. Codes are the nearest levels."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.formats.format import SIGNED_SCALES
from scrimp.formats.scale_types import to_nearest
from scrimp.quantize.by_block import nearest
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, Stored

#: Newton steps; with one bit the iteration may circle.
STEPS = 20
#: Percent of a block's magnitudes that "percentile" doesn't clip.
PERCENT = 99.9


def octav(weight: F32, format: Format, statistics: Statistics | None = None) -> Quantized:
    """Clip at the fixed point of the error that rounding to ``B`` bits and clipping are expected to make::

        s ← Σ_{|w|>s} |w| / (4^-B/3 · #{0 < |w| ≤ s} + #{|w| > s})      scale = s / reach

    From the largest magnitude, ``STEPS`` times; of all that were met the scale of least squared error as stored is
    kept, the largest magnitude's among them: never worse than clipping nothing.

    Edge cases
        Integer and ternary codes without a min only; UsageError for others. Lopsided codes try both signs.
    Source
        Sakr et al. 2022, arXiv:2206.06501, equation 6 and algorithm 1
    """
    if format.element.kind not in ("int", "ternary") or format.has_min:
        raise UsageError(f"{format.name}: octav assumes evenly spaced levels around zero.", hint="use rtn, or int4:g64")
    levels = levels_for(weight, format, "rtn:octav")
    parts = nearest(weight, levels, lambda w, _, part, whole: _octav(w, part, whole))
    return Quantized(levels.tensor(parts.codes, parts.scales))


def percentile(weight: F32, format: Format, statistics: Statistics | None = None) -> Quantized:
    """Clip at the 99.9th percentile of a block's magnitudes; of formats with a min the same share at both ends.

    Linear between order statistics, so in blocks of 64 that is nearly the largest magnitude. Scales are rounded to
    nearest.
    """
    levels = levels_for(weight, format, "rtn:percentile")
    parts = nearest(weight, levels, lambda w, _, part, whole: _percentile(w, part, whole))
    return Quantized(levels.tensor(parts.codes, parts.scales, parts.mins))


def _octav(w: F32, levels: Levels, whole: bool) -> tuple[Stored, None]:
    size = np.abs(_one(w, whole)).astype(np.float64)
    inner = 4.0**-levels.format.element.bits / 3
    clip = size.max(axis=0)
    best = levels.grid.up(clip / _reach(levels))
    least = _errors(w, best, levels, whole)
    for _ in range(STEPS + 1):
        for sign in (1, -1) if _two_sided(levels) else (1,):
            trial = levels.grid.nearest(sign * clip / _reach(levels))
            error = _errors(w, trial, levels, whole)
            best = np.where(error < least, trial, best).astype(best.dtype)
            least = np.fmin(error, least)
        before, outside = clip, size > clip
        below = ((size > 0) & ~outside).sum(axis=0)
        clip = (size * outside).sum(axis=0) / np.maximum(inner * below + outside.sum(axis=0), 1e-300)
        clip = np.where(clip > 0, clip, size.mean(axis=0))  # nothing lies beyond the largest: the usual start
        if (clip == before).all():
            break
    return best, None


def _percentile(w: F32, levels: Levels, whole: bool) -> tuple[Stored, Stored | None]:
    block, kind = _one(w, whole).astype(np.float64), levels.grid.kind
    if levels.format.has_min:
        low, high = np.percentile(block, [(100 - PERCENT) / 2, (100 + PERCENT) / 2], axis=0)
        return to_nearest((high - low) / (levels.format.element.levels - 1), kind), to_nearest(low, kind)
    clip = np.percentile(np.abs(block), PERCENT, axis=0)
    if _two_sided(levels):  # the longer side of the code to the longer side of the block
        clip = np.where(-block.min(axis=0) > block.max(axis=0), -clip, clip)
    return levels.grid.nearest(clip / _reach(levels)), None


def _errors(w: F32, scales: Stored, levels: Levels, whole: bool) -> F64:
    value = levels.value(scales)
    off = levels.values(levels.codes(w, value), value) - w
    return np.asarray(np.square(_one(off, whole)).sum(axis=0, dtype=np.float64))


def _one(w: F32, whole: bool) -> F32:
    return w.reshape(-1, 1) if whole else w


def _two_sided(levels: Levels) -> bool:
    return levels.format.element.lopsided and levels.format.scale in SIGNED_SCALES


def _reach(levels: Levels) -> float:
    """The level that the clipping point is mapped to."""
    return abs(levels.format.element.reach(signed=levels.format.scale in SIGNED_SCALES)) or 1.0
