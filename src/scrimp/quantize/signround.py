"""SignRound: an offset for every weight's rounding and one for the ends of every block, moved by signs of gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.formats.format import SIGNED_SCALES
from scrimp.formats.scale_types import to_f32, to_nearest
from scrimp.quantize import rtn
from scrimp.quantize.blocks import FRESH, row_chunks
from scrimp.quantize.fallback import or_plain
from scrimp.quantize.grid import Levels, Parts, levels_of, refuse
from scrimp.quantize.importance import weighted_start
from scrimp.quantize.objective import damped, moments_of
from scrimp.quantize.pool import pool
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, Stored

STEPS = 200
#: How far offsets may go: half a step between levels; half of a block's width at either end.
LIMIT = np.float32(0.5)


def quantize(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """Offsets ``v`` in [-½, ½] of every weight, and ``a``, ``b`` of every block, so that the layer's output errs less::

        ŵ = scale · nearest((w - min) / scale + v) + min      scale ← scale (1 + a)      min ← min + scale₀ · levels · b
        v, a, b ← each less rate · sign of the gradient of tr((W - Ŵ) H (W - Ŵ)ᵀ)      rate falls from 1/200 to 0

    The gradient passes rounding as if it weren't there: ``∂ŵ/∂v = scale``, ``∂ŵ/∂scale = code - (w - min)/scale``.
    All 200 iterates are evaluated as they would be stored, and the best of every row is kept. It starts from the scales
    that GPTQ chooses; the paper starts from those that clip nothing, and so only shrinks them.

    Shapes
        weight (N, K), statistics of K inputs; the last group may be ragged
    Error
        No row errs more than after ``rtn``: one that would is rounded to nearest, and a note counts them.
    Edge cases
        One scale per tensor stays what it was: only offsets of weights are learned. Where levels are not evenly spaced,
        a step is the mean distance between them.
    Source
        Cheng et al. 2023, arXiv:2309.05516, section 3 (SignSGD with weight rounding and min-max tuning)
    """
    refuse(format, "signround")
    moments = moments_of(statistics, weight, "signround")
    plain = rtn.quantize(weight, format)
    levels = levels_of(plain, "signround")
    start = weighted_start(weight, levels, moments)
    w, h = np.ascontiguousarray(weight.T, np.float32), damped(moments).astype(np.float32)
    codes, scales = start.codes.copy(), start.scales.copy()
    mins = None if start.mins is None else start.mins.copy()

    def work(at: slice) -> None:
        found = _learn(w[:, at], start.rows(at), levels.rows(at), h)
        codes[:, at] = found.codes
        if format.block != "tensor":
            scales[:, at] = found.scales
            if mins is not None and found.mins is not None:
                mins[:, at] = found.mins

    list(pool().map(work, row_chunks(len(weight), weight.shape[1], FRESH)))
    return or_plain(plain, Parts(codes, scales, mins), weight, moments, levels)


@dataclass(slots=True, eq=False)
class _Offsets:
    weight: F32  #: (K, n), in steps
    scale: F32  #: (groups, n), as a share of the scale
    low: F32  #: (groups, n), as a share of the block's width

    def move(self, rate: float, weight: F32, scale: F32, low: F32) -> None:
        for offset, slope in ((self.weight, weight), (self.scale, scale), (self.low, low)):
            offset -= np.float32(rate) * np.sign(slope)
            np.clip(offset, -LIMIT, LIMIT, out=offset)


def _learn(w: F32, start: Parts, levels: Levels, moments: F32) -> Parts:
    cols, rows = w.shape
    starts = np.arange(0, cols, levels.format.group(cols))
    group, fixed = np.arange(cols) // levels.format.group(cols), levels.format.block == "tensor"
    step = _step(levels)
    offsets = _Offsets(*(np.zeros((side, rows), np.float32) for side in (cols, len(starts), len(starts))))
    best, least = start, np.full(rows, np.inf)
    for at in range(STEPS + 1):
        scales, mins = (start.scales, start.mins) if fixed else _moved(start, levels, offsets)
        scale, low = levels.value(scales)[group], levels.low(mins)
        low = None if low is None else low[group]
        codes = levels.codes(w + offsets.weight * (step * scale), scale, low)
        off = levels.values(codes, scale, low) - w
        slope = moments @ off
        errors = np.einsum("kn,kn->n", off, slope).astype(np.float64)
        best = _better(best, Parts(codes, scales, mins), errors < least)
        least = np.fmin(errors, least)
        if at < STEPS:
            safe = np.where(scale == 0, np.float32(np.inf), scale)
            steps = (w if low is None else w - low) / safe
            offsets.move(
                (1 - at / STEPS) / STEPS,
                slope * np.sign(scale),
                np.add.reduceat(slope * (levels.numbers(codes) - steps) * scale, starts, axis=0),
                np.add.reduceat(slope, starts, axis=0),
            )
    return best


def _moved(start: Parts, levels: Levels, offsets: _Offsets) -> tuple[Stored, Stored | None]:
    kind = levels.grid.kind
    before = to_f32(start.scales, kind).astype(np.float64)
    scale = before * (1 + offsets.scale)
    scales = to_nearest(scale if kind in SIGNED_SCALES else np.maximum(scale, 0), kind)
    if start.mins is None:
        return scales, None
    width = np.abs(before) * (levels.format.element.levels - 1)
    return scales, to_nearest(to_f32(start.mins, kind) + width * offsets.low, kind)


def _better(best: Parts, trial: Parts, rows: NDArray[np.bool_]) -> Parts:
    if best.scales.shape[1] < best.codes.shape[1]:  # one scale per tensor, which doesn't move
        return Parts(np.where(rows, trial.codes, best.codes), best.scales, best.mins)
    return trial.where(rows, best)


def _step(levels: Levels) -> np.float32:
    """The mean distance between levels, before the scale."""
    if levels.format.has_min:
        return np.float32(1)
    numbers = levels.numbers(np.arange(levels.format.element.levels).astype(np.uint16))
    numbers = np.unique(numbers[np.isfinite(numbers)])
    return np.float32((numbers[-1] - numbers[0]) / (len(numbers) - 1))
