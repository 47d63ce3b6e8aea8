"""HQQ: scales and mins that leave few large errors, from the weights alone, by half-quadratic splitting."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.formats.scale_types import at_least, at_most, to_f32, to_nearest
from scrimp.quantize.by_block import nearest
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.quantized import Quantized
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32, Stored

#: The norm: below 1, so that many small errors count more than a few large ones.
P = 0.7
BETA, KAPPA, STEPS = 10.0, 1.01, 20


def quantize(weight: F32, format: Format, statistics: Statistics | None = None) -> Quantized:
    """Scales and mins of small ``Σ |w - ŵ|^p``, ``p = 0.7``, block by block; codes are the nearest levels::

        e ← sign(r)·max(0, |r| - |r|^(p-1) / β)      r = (w - ŵ) / scale, the errors in steps
        min   ← mean(w - e·scale - scale·code)       formats with min; the scale stays
        scale ← Σ (w - e·scale) q / Σ q²             the others, q the code's value
        β ← 1.01 β                                   from 10, twenty times

    Runs from the scale that clips nothing and from that of least squares; of all that were met, as stored, the best is
    kept: never worse than either start in its own objective.

    Shapes
        weight (N, K); the last group may be ragged; ``statistics`` are not looked at
    Edge cases
        Integer and ternary codes only; UsageError for others. Errors are counted in steps, so that a weight's unit
        doesn't matter: with the paper's β = 10 on plain weights of size 0.05 every e would be 0.
    Source
        Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models", sections "robust
        optimization formulation" and "half-quadratic solver"
    """
    if format.element.kind not in ("int", "ternary"):
        raise UsageError(
            f"{format.name}: hqq fits scales of evenly spaced levels.", hint="use rtn or gptq, or int4:g64"
        )
    levels = levels_for(weight, format, "hqq")
    parts = nearest(weight, levels, lambda w, _, part, whole: solve(w, part, whole=whole))
    return Quantized(levels.tensor(parts.codes, parts.scales, parts.mins))


def solve(w: F32, levels: Levels, *, whole: bool = False) -> tuple[Stored, Stored | None]:
    """Scales and mins ``(M,)`` of the blocks ``w (G, M)``; ``(1,)`` where ``whole``, all weights being one block."""
    with np.errstate(all="ignore"):
        best, least = None, np.zeros(0)
        for scales, mins in (_plain(w, levels, whole), choose(w, levels, np.ones(len(w), np.float32), whole=whole)):
            beta = BETA
            for step in range(STEPS + 1):
                numbers = levels.numbers(levels.codes(w, levels.value(scales), levels.low(mins)))
                off, error = _errors(w, numbers, levels, scales, mins, whole)
                if best is None:
                    best, least = (scales, mins), error
                else:
                    best, least = _better(error, least, (scales, mins), best)
                if step < STEPS:
                    scales, mins = _move(w, numbers, off, beta, levels, scales, mins, whole)
                    beta *= KAPPA
    assert best is not None
    return best


def _plain(w: F32, levels: Levels, whole: bool) -> tuple[Stored, Stored | None]:
    kind, element = levels.grid.kind, levels.format.element
    low, high = (reduce(w, axis=None if whole else 0, keepdims=whole).reshape(-1).astype(np.float64)
                 for reduce in (np.min, np.max))  # fmt: skip
    if levels.format.has_min:
        mins = at_most(low, kind)
        return at_least((high - to_f32(mins, kind)) / (element.levels - 1), kind), mins
    reach = max(1, min(element.zero or element.levels - 1, element.levels - 1 - element.zero or element.zero))
    return levels.grid.up(np.maximum(-low, high) / reach), None


def _errors(w: F32, numbers: F32, levels: Levels, scales: Stored, mins: Stored | None, whole: bool) -> tuple[F32, F64]:
    """``w - ŵ`` and its ``Σ |w - ŵ|^p`` per block."""
    values, low = numbers * levels.value(scales), levels.low(mins)
    off = w - (values if low is None else values + low)
    return off, _sum(np.power(np.abs(off), np.float32(P)), whole)


def _move(
    w: F32, numbers: F32, off: F32, beta: float, levels: Levels, scales: Stored, mins: Stored | None, whole: bool
) -> tuple[Stored, Stored | None]:
    value, kind = levels.value(scales), levels.grid.kind
    steps = np.abs(off / np.where(value == 0, np.float32(1), value))
    size = np.maximum(steps - np.power(steps, np.float32(P - 1)) / np.float32(beta), 0)  # |r| = 0 is shrunk by infinity
    kept = w - np.copysign(size * np.abs(value), off)
    if mins is not None:
        mean = _sum(kept - numbers * value, whole) / float(w.size if whole else len(w))
        return scales, to_nearest(mean, kind)
    squares = _sum(np.square(numbers), whole)
    fit = np.divide(_sum(kept * numbers, whole), squares, out=value.astype(np.float64), where=squares > 0)
    return levels.grid.nearest(fit), None


def _better(
    error: F64, least: F64, trial: tuple[Stored, Stored | None], best: tuple[Stored, Stored | None]
) -> tuple[tuple[Stored, Stored | None], F64]:
    better = error < least
    scales = np.where(better, trial[0], best[0]).astype(best[0].dtype)
    if trial[1] is None or best[1] is None:
        return (scales, None), np.fmin(error, least)
    return (scales, np.where(better, trial[1], best[1]).astype(best[1].dtype)), np.fmin(error, least)


def _sum(x: F32, whole: bool) -> F64:
    found = np.asarray(x.sum(axis=0, dtype=np.float64))
    return np.asarray(found.sum(keepdims=True)) if whole else found
