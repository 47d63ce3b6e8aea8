"""Descent: codes and scales in turn, each given the other, downhill in what the layer puts out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats.code import F64, Codes
from scrimp.quantize import codebook
from scrimp.quantize.grid import Levels, Parts, levels_of, parts_of
from scrimp.quantize.objective import damped, moments_of
from scrimp.quantize.refit import keep_better, solve
from scrimp.tensors import F32, QTensor

#: Times that scales are refitted and all codes visited.
PASSES = 3
_LEAF = 16


def refine(tensor: QTensor, weight: F32, statistics: Statistics | None) -> QTensor:
    """Refit all scales, then visit each input once and give every row the code that is best there, all else as it is::

        ŵ_k ← nearest(ŵ_k + ((w - ŵ) H)_k / H_kk)        where that lowers (w - ŵ) H (w - ŵ)ᵀ

    and again, ``PASSES`` times. H is damped as in GPTQ, so that few tokens don't pull weights far from where they were.

    Shapes
        weight (N, K), which ``tensor`` was made of; statistics of K inputs
    Error
        No row errs more than before: one that would stays as it was. Levels that were learned are solved for in the
        end, which never raises the sum.
    Edge cases
        Inputs that were never active keep their codes.
    Source
        Coordinate descent on GPTQ's objective: Behdin et al. 2023, arXiv:2309.01885 (QuantEase), section 3; with scales
        refitted in between, ours
    """
    moments, levels = moments_of(statistics, weight, "descent"), levels_of(tensor, "descent")
    parts = found = parts_of(tensor, levels)
    for _ in range(PASSES):
        found = solve(found, weight, moments, levels)
        found = replace(found, codes=_visit(found, weight, damped(moments), levels))
    better = keep_better(tensor, parts, found, weight, moments, levels)
    return better if levels.codebook is None else codebook.refit(better, weight, moments)


def _visit(parts: Parts, weight: F32, moments: F64, levels: Levels) -> Codes:
    cols = weight.shape[1]
    group = np.arange(cols) // levels.format.group(cols)
    scale, low = levels.value(parts.scales)[group], levels.low(parts.mins)
    low = None if low is None else low[group]
    values = levels.values(parts.codes, scale, low)
    slope = moments @ (weight.T.astype(np.float64) - values)
    visit = _Visit(levels, scale, low, moments.astype(np.float32), parts.codes.copy(), values,
                   slope.astype(np.float32), np.zeros_like(values))  # fmt: skip
    visit.run(0, cols)
    return visit.codes


@dataclass(frozen=True, slots=True, eq=False)
class _Visit:
    levels: Levels
    scale: F32  #: (K, N) or (K, 1), as all that follows
    low: F32 | None
    moments: F32
    codes: Codes
    values: F32
    slope: F32  #: H (w - ŵ)
    moved: F32

    def run(self, begin: int, end: int) -> None:
        if end - begin > _LEAF:
            middle = begin + (1 << (end - begin - 1).bit_length() - 1)
            self.run(begin, middle)
            self.slope[middle:end] -= self.moments[middle:end, begin:middle] @ self.moved[begin:middle]
            self.run(middle, end)
            return
        for k in range(begin, end):
            curve = self.moments[k, k]
            if curve <= 0:
                continue
            low = None if self.low is None else self.low[k]
            codes = self.levels.codes(self.values[k] + self.slope[k] / curve, self.scale[k], low)
            move = self.levels.values(codes, self.scale[k], low) - self.values[k]
            better = move * (2 * self.slope[k] - move * curve) > 0
            self.codes[k] = np.where(better, codes, self.codes[k])
            self.moved[k] = move * better
            self.slope[k + 1 : end] -= self.moments[k + 1 : end, k, None] * self.moved[k]
