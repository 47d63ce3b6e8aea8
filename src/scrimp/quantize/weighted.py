"""Scales (and mins) of least *weighted* squared error, for every format that methods can round to.

``Σ_k h_k (w_k - ŵ_k)²`` over the weights of a block, by a scan over clipping ratios whose winner is then fitted: for
fixed codes the best scale is ``Σhwq / Σhq²``, and with a min it is the weighted regression line. Candidates are judged
as stored, so what is returned is the best of all that were tried, the scale that clips nothing among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from scrimp.formats.code import F64
from scrimp.formats.format import SIGNED_SCALES
from scrimp.formats.scale_types import at_least, at_most, to_f32, to_nearest
from scrimp.quantize.grid import Levels
from scrimp.quantize.nearest import weighted_sums
from scrimp.tensors import F32, Stored

#: Fits after the scan, each to the codes of the best before it.
FITS = 3
_STEPS = 10
#: How far down from the scale that clips nothing groups are scanned, by the bits of an integer code.
_LEAST = {1: 0.3, 2: 0.25, 3: 0.35, 4: 0.55, 5: 0.7, 6: 0.8, 7: 0.88}
_LEAST_OF_MANY = 0.94
_SHARES = (1.0, 0.92, 0.84, 0.72, 0.55)


def choose(w: F32, levels: Levels, importance: F32, *, whole: bool = False) -> tuple[Stored, Stored | None]:
    """The scale and, where the format has one, the min of every block, as stored.

    Shapes
        w (G, M): a block is a column. importance (G,): h ≥ 0; all zeros count as all ones. Returns (M,) twice; or
        (1,) where ``whole``, which makes one block of everything.
    """
    h = importance / importance.max() if importance.max() > 0 else np.ones_like(importance)
    problem = _Problem(w, levels, h.astype(np.float32), whole)
    with np.errstate(all="ignore"):
        return _affine(problem) if levels.format.has_min else (_scaled(problem), None)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    w: F32
    levels: Levels
    h: F32
    whole: bool

    def total(self, per_weight: F32) -> F64:
        """``Σ_k h_k x_k`` of every block."""
        found = np.asarray(np.einsum("k,km->m", self.h, per_weight), np.float64)
        return found.sum(keepdims=True) if self.whole else found

    @property
    def mass(self) -> float:
        """``Σ_k h_k`` of a block."""
        return float(self.h.sum(dtype=np.float64)) * (self.w.shape[1] if self.whole else 1)

    def ends(self) -> tuple[F64, F64]:
        """The least and greatest weight of every block."""
        low, high = self.w.min(axis=0).astype(np.float64), self.w.max(axis=0).astype(np.float64)
        return (low.min(keepdims=True), high.max(keepdims=True)) if self.whole else (low, high)

    def sums(self, scales: Stored, mins: Stored | None = None) -> F64:
        """``Σh(w - ŵ)²``, ``Σhq``, ``Σhq²`` and ``Σhwq`` of every block, q as in ``ŵ = scale·q + min``: ``(4, M)``."""
        found = weighted_sums(self.w, self.levels, self.h, self.levels.value(scales), self.levels.low(mins))
        return found.sum(axis=1, keepdims=True) if self.whole else found

    def error(self, scales: Stored, mins: Stored | None = None) -> F64:
        found = self.sums(scales, mins)[0]
        return np.where(np.isfinite(found), found, np.inf)


def _scaled(problem: _Problem) -> Stored:
    grid = problem.levels.grid
    start, ratios = _candidates(problem)
    best = grid.up(start)
    error = problem.error(best)
    for ratio in ratios:
        best, error = _better(problem, grid.nearest(start * ratio), best, error)
    for _ in range(FITS):
        _, _, squares, products = problem.sums(best)
        fit = products / squares
        if grid.kind not in SIGNED_SCALES:
            fit = np.maximum(fit, 0)
        best, error = _better(problem, grid.nearest(np.where(np.isfinite(fit), fit, 0)), best, error)
    return best


def _better(problem: _Problem, trial: Stored, best: Stored, least: F64) -> tuple[Stored, F64]:
    error = problem.error(trial)
    return np.where(error < least, trial, best).astype(best.dtype), np.fmin(error, least)


def _candidates(problem: _Problem) -> tuple[F64, list[float]]:
    """The scale that clips nothing, and what to multiply it by."""
    format, (low, high) = problem.levels.format, problem.ends()
    numbers = problem.levels.numbers(np.arange(format.element.levels, dtype=np.uint16))
    numbers = numbers[np.isfinite(numbers)]
    reaches = [reach for reach in (-float(numbers.min()), float(numbers.max())) if reach > 0]
    if not reaches:  # a codebook learned from zeros
        return np.zeros(low.shape), [1.0]
    start = np.maximum(-low, high) / min(reaches)
    if format.element.kind == "binary":
        return start, [0.5]
    if format.element.tapered:
        rms = np.sqrt(problem.total(np.square(problem.w)) / problem.mass)
        return rms, list(np.geomspace(1 / 32, 32, 3 * _STEPS))
    if format.scale == "e8m0":
        return np.exp2(np.ceil(np.log2(np.where(start > 0, start, 1.0)))) * (start > 0), [0.5, 0.25, 0.125]
    # Levels that lie closer near zero may serve a block best when the last of them are left idle.
    idle = 1.5 if format.element.kind == "table" and format.element.bits <= 4 else 1.0
    grouped = isinstance(format.block, int)
    bits = 4 if format.element.kind == "table" else format.element.bits
    least = _LEAST.get(bits, _LEAST_OF_MANY) if grouped else 0.05
    ratios = np.geomspace(least * min(reaches) / max(reaches), idle, _STEPS if grouped else 4 * _STEPS)
    if format.scale in SIGNED_SCALES and (len(reaches) == 1 or reaches[0] != reaches[1]):
        return start, [*ratios, *-ratios]
    return start, list(ratios)


def _affine(problem: _Problem) -> tuple[Stored, Stored]:
    kind, top = problem.levels.grid.kind, 2**problem.levels.format.element.bits - 1
    low, high = problem.ends()
    mins = at_most(low, kind)
    scales = at_least((high - to_f32(mins, kind)) / top, kind)
    error = problem.error(scales, mins)
    middle = problem.total(problem.w) / problem.mass

    def attempt(scale: F64, start: F64) -> None:
        nonlocal scales, mins, error
        trial = to_nearest(_finite(scale), kind), to_nearest(_finite(start), kind)
        trial_error = problem.error(*trial)
        better = trial_error < error
        scales, mins = np.where(better, trial[0], scales), np.where(better, trial[1], mins)
        error = np.fmin(error, trial_error)

    shares = _SHARES if isinstance(problem.levels.format.block, int) else (*_SHARES, 0.3, 0.15, 0.07)
    for below, above in product(shares, repeat=2):
        start, end = middle + (low - middle) * below, middle + (high - middle) * above
        attempt((end - start) / top, start)
    for _ in range(FITS):
        _, first, second, moment = problem.sums(scales, mins)
        slope = (moment - middle * first) / (second - first * first / problem.mass)
        attempt(slope, middle - slope * first / problem.mass)
    return scales, mins


def _finite(values: F64) -> F64:
    return np.where(np.isfinite(values), values, 0)
