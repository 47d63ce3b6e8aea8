"""HQQ: scales and mins that leave few large errors, from the weights alone, by half-quadratic splitting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.formats.scale_types import at_least, at_most, divisor, to_f32, to_nearest
from scrimp.quantize.by_block import nearest
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.quantized import Quantized
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32, Stored

#: The norm: below 1, so that many small errors count more than a few large ones.
P = 0.7
BETA, KAPPA, STEPS = 10.0, 1.01, 20
#: Steps that every block takes. More cost twice the time for 0.1 to 0.5 % of the objective.
SURE = 2

#: The bit of a float32 that says it is negative.
_SIGN = np.uint32(1 << 31)

Chosen = tuple[Stored, Stored | None]  # scales and mins (M,)


def quantize(weight: F32, format: Format, statistics: Statistics | None = None) -> Quantized:
    """Scales and mins of small ``Σ |w - ŵ|^p``, ``p = 0.7``, block by block; codes are the nearest levels::

        e ← sign(r)·max(0, |r| - |r|^(p-1) / β)      r = (w - ŵ) / scale, the errors in steps
        min   ← mean(w - e·scale - scale·code)       formats with min; the scale stays
        scale ← Σ (w - e·scale) q / Σ q²             the others, q the code's value
        β ← 1.01 β                                   from 10, at most twenty times, while a block errs less

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
    if whole:
        w = w.reshape(-1, 1)
    with np.errstate(all="ignore"):
        starts = (_plain(w, levels), choose(w, levels, np.ones(len(w), np.float32), whole=whole))
        (best, least), (other, error) = (_from(start, w, levels) for start in starts)
        return _better(error, least, other, best)[0]


def _from(start: Chosen, w: F32, levels: Levels) -> tuple[Chosen, F64]:
    """The best that is met on the way from ``start``, and its error; blocks whose error doesn't fall any more stop."""
    best, least = start, np.full(w.shape[1], np.inf)
    at, now, before = np.arange(w.shape[1]), start, least
    for step in range(STEPS + 1):
        part = levels.rows(at) if len(at) < w.shape[1] else levels
        error, scales, mins = _step(w, BETA * KAPPA**step, part, *now)
        fell = error < before
        took = at[error < least[at]]
        best = _put(best, took, _cut(now, error < least[at]))
        least[at] = np.fmin(least[at], error)
        now, before = (scales, mins), error
        if step >= SURE and not fell.all():
            at, w, before, now = at[fell], w.compress(fell, axis=1), before[fell], _cut(now, fell)
            if not len(at):
                break
    return best, least


def _cut(chosen: Chosen, at: NDArray[np.bool_]) -> Chosen:
    return chosen[0][at], None if chosen[1] is None else chosen[1][at]


def _put(chosen: Chosen, at: NDArray[np.intp], other: Chosen) -> Chosen:
    for part, new in zip(chosen, other, strict=True):
        if part is not None and new is not None:
            part[at] = new
    return chosen


def _plain(w: F32, levels: Levels) -> tuple[Stored, Stored | None]:
    kind, element = levels.grid.kind, levels.format.element
    low, high = (reduce(w, axis=0).astype(np.float64) for reduce in (np.min, np.max))
    if levels.format.has_min:
        mins = at_most(low, kind)
        return at_least((high - to_f32(mins, kind)) / (element.levels - 1), kind), mins
    reach = max(1, min(element.zero or element.levels - 1, element.levels - 1 - element.zero or element.zero))
    return levels.grid.up(np.maximum(-low, high) / reach), None


def _step(
    w: F32, beta: float, levels: Levels, scales: Stored, mins: Stored | None
) -> tuple[F64, Stored, Stored | None]:
    """``Σ |w - ŵ|^p`` of every block, and the scales and mins that follow. All is in steps, where one power is enough:
    ``|r|^(p-1) = |r|^p / |r|``; and ``r - e``, what is not shrunk away, is all that moves them."""
    value, low = levels.value(scales), levels.low(mins)
    zero = 0 if mins is not None else levels.format.element.zero
    r = (w if low is None else w - low) / divisor(value)
    codes = np.rint(r)
    np.clip(codes, -zero, levels.format.element.levels - 1 - zero, out=codes)
    r -= codes
    size = np.abs(r)
    power = np.log(size)
    power *= np.float32(P)
    np.exp(power, out=power)
    error = power.sum(axis=0, dtype=np.float64) * np.abs(value.astype(np.float64)) ** P
    if (flat := value == 0).any():  # steps of 0 measure nothing
        error[flat] = (np.abs((w if low is None else w - low)[:, flat]).astype(np.float64) ** P).sum(axis=0)
    power /= np.maximum(size, np.float32(1e-30))
    power *= np.float32(1 / beta)
    np.minimum(power, size, out=power)  # |r| less what is left of it after shrinking
    sign = np.bitwise_and(r.view(np.uint32), _SIGN, out=r.view(np.uint32))
    np.bitwise_or(power.view(np.uint32), sign, out=power.view(np.uint32))  # copysign, in half its time
    kept = power
    if mins is not None:
        mean = kept.mean(axis=0, dtype=np.float64)
        return error, scales, to_nearest(to_f32(mins, levels.grid.kind) + value * mean, levels.grid.kind)
    squares = np.einsum("gm,gm->m", codes, codes).astype(np.float64)
    share = np.divide(np.einsum("gm,gm->m", kept, codes), squares, out=np.zeros(len(squares)), where=squares > 0)
    return error, levels.grid.nearest(value * (1 + share)), None


def _better(
    error: F64, least: F64, trial: tuple[Stored, Stored | None], best: tuple[Stored, Stored | None]
) -> tuple[tuple[Stored, Stored | None], F64]:
    better = error < least
    scales = np.where(better, trial[0], best[0]).astype(best[0].dtype)
    if trial[1] is None or best[1] is None:
        return (scales, None), np.fmin(error, least)
    return (scales, np.where(better, trial[1], best[1]).astype(best[1].dtype)), np.fmin(error, least)
