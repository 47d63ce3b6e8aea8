"""Refit: codes stay, and all scales (and mins) of a row are solved for together, by what the layer puts out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats.code import F64, Codes
from scrimp.formats.format import SIGNED_SCALES
from scrimp.formats.scale_types import to_f32, to_nearest
from scrimp.quantize import codebook
from scrimp.quantize.grid import Levels, Parts, levels_of, parts_of
from scrimp.quantize.objective import moments_of, row_errors
from scrimp.tensors import F32, QTensor, Stored

#: Pull towards the scales there are, as a share of the mean diagonal of the normal equations.
RIDGE = 1e-6
#: Rounds of moving one scale after the other, to make up for what rounding the others cost.
ROUNDS = 2
_NUMBERS_AT_ONCE = 1 << 21


def refine(tensor: QTensor, weight: F32, statistics: Statistics | None) -> QTensor:
    """The scales of least ``(w - ŵ) H (w - ŵ)ᵀ`` for the codes of ``tensor``, row by row::

        ŵ = s B                    a row of B per group: its code values, zero elsewhere; per min: ones on its group
        s (B H Bᵀ + ridge) = w H Bᵀ + ridge·(s as it is)

    The solution is stored to nearest, then each scale in turn goes to the nearest of its own optimum given the others;
    that is also done from the scales there are, and of both the better one is taken.

    Shapes
        weight (N, K), which ``tensor`` was made of; statistics of K inputs
    Error
        No row errs more than before: one that would, in values as they are decoded, stays as it was. Levels that were
        learned are solved for in the end (codebook.py); rows share them, so there it is the sum that never rises.
    Edge cases
        A group whose codes all mean zero keeps its scale. One scale per tensor is solved for over all rows. The second
        scales of nvfp4 and vsq stay.
    Source
        Least squares in closed form, ours; after codes were chosen by GPTQ, whose scales no longer fit them
    """
    moments, levels = moments_of(statistics, weight, "refit"), levels_of(tensor, "refit")
    parts = parts_of(tensor, levels)
    found = solve(parts, weight, moments, levels)
    better = keep_better(tensor, parts, found, weight, moments, levels)
    return better if levels.codebook is None else codebook.refit(better, weight, moments)


def keep_better(tensor: QTensor, parts: Parts, found: Parts, weight: F32, moments: F64, levels: Levels) -> QTensor:
    """The rows of ``found`` that err less than those of ``tensor``; of one scale per tensor all or none."""
    new = levels.tensor(found.codes, found.scales, found.mins)
    before, after = (row_errors(weight - q.dequantize().astype(np.float64), moments) for q in (tensor, new))
    if tensor.format.block == "tensor":
        return new if after.sum() < before.sum() else tensor
    kept = found.where(after < before, parts)
    return levels.tensor(kept.codes, kept.scales, kept.mins)


def solve(parts: Parts, weight: F32, moments: F64, levels: Levels) -> Parts:
    """``parts`` with other scales and mins: the best found, not yet compared with those there were."""
    (rows, cols), format, kind = weight.shape, levels.format, levels.grid.kind
    unknowns = format.groups(cols) * (1 + format.has_min)
    step = max(1, _NUMBERS_AT_ONCE // max(unknowns**2, cols))
    scales, mins = parts.scales.copy(), None if parts.mins is None else parts.mins.copy()
    together = [np.zeros((1, unknowns, unknowns)), np.zeros((1, unknowns))]
    for begin in range(0, rows, step):
        at = slice(begin, min(begin + step, rows))
        normal, right = _normal_equations(parts.codes[:, at], weight[at], moments, levels.rows(at))
        if format.block == "tensor":
            together = [together[0] + normal.sum(axis=0), together[1] + right.sum(axis=0)]
        else:
            _put(scales, mins, at, _best(normal, right, _get(scales, mins, at, kind), kind), kind)
    if format.block == "tensor":
        every = slice(None)
        _put(scales, mins, every, _best(together[0], together[1], _get(scales, mins, every, kind), kind), kind)
    return replace(parts, scales=scales, mins=mins)


def _normal_equations(codes: Codes, weight: F32, moments: F64, levels: Levels) -> tuple[F64, F64]:
    """``B H Bᵀ (n, m, m)`` and ``w H Bᵀ (n, m)``: scales first, then mins."""
    unit, cols = levels.grid.unit, len(codes)
    values = levels.numbers(codes).T.astype(np.float64)
    if unit is not None:
        values *= unit.reshape(-1, 1)
    starts = np.arange(0, cols, levels.format.group(cols))
    read = weight.astype(np.float64) @ moments
    right = [np.add.reduceat(values * read, starts, axis=1)]
    count = len(starts)
    size = count * (1 + levels.format.has_min)
    normal = np.empty((len(values), size, size))
    for group, (begin, end) in enumerate(zip(starts, [*starts[1:], cols], strict=True)):
        seen = values[:, begin:end] @ moments[begin:end]
        normal[:, group, :count] = np.add.reduceat(seen * values, starts, axis=1)
        if levels.format.has_min:
            normal[:, group, count:] = np.add.reduceat(seen, starts, axis=1)
    if levels.format.has_min:
        normal[:, count:, :count] = normal[:, :count, count:].transpose(0, 2, 1)
        normal[:, count:, count:] = np.add.reduceat(np.add.reduceat(moments, starts, axis=0), starts, axis=1)
        right.append(np.add.reduceat(read, starts, axis=1))
    return normal, np.concatenate(right, axis=1)


def _best(normal: F64, right: F64, start: F64, kind: str) -> F64:
    """The better of what joint solution and present scales lead to, as stored: ``(n, m)``."""
    diagonal = np.einsum("nii->ni", normal)
    mean = diagonal.mean(axis=1, keepdims=True)
    ridge = np.where(mean > 0, RIDGE * mean, 1.0)
    ridged = normal + ridge[..., None] * np.eye(normal.shape[1])
    solution = np.asarray(np.linalg.solve(ridged, (right + ridge * start)[..., None])[..., 0], np.float64)
    solution = np.where((diagonal > 0) & np.isfinite(solution), solution, start)
    found = [_descend(normal, right, s, kind) for s in (_stored(solution, kind), start)]
    costs = [
        np.einsum("ni,nij,nj->n", s, normal, s, optimize=True) - 2 * np.einsum("ni,ni->n", right, s) for s in found
    ]
    return np.where((costs[0] < costs[1])[:, None], *found)


def _descend(normal: F64, right: F64, s: F64, kind: str) -> F64:
    """One unknown after the other to the stored number nearest to its optimum, where that lowers ``sAsᵀ - 2bsᵀ``."""
    s = s.copy()
    rest = right - np.einsum("nij,nj->ni", normal, s)
    for _ in range(ROUNDS):
        for i in range(s.shape[1]):
            curve = normal[:, i, i]
            step = np.divide(rest[:, i], curve, out=np.zeros(len(s)), where=curve > 0)
            move = _stored(s[:, i] + step, kind) - s[:, i]
            move *= move * (2 * rest[:, i] - move * curve) > 0
            s[:, i] += move
            rest -= normal[:, i] * move[:, None]
    return s


def _stored(values: F64, kind: str) -> F64:
    return to_f32(to_nearest(values if kind in SIGNED_SCALES else np.maximum(values, 0), kind), kind).astype(np.float64)


def _get(scales: Stored, mins: Stored | None, at: slice, kind: str) -> F64:
    both = [to_f32(part[:, at].T, kind) for part in (scales, mins) if part is not None]
    return np.concatenate(both, axis=1).astype(np.float64)


def _put(scales: Stored, mins: Stored | None, at: slice, s: F64, kind: str) -> None:
    stored = to_nearest(s, kind).T
    scales[:, at] = stored[: len(scales)]
    if mins is not None:
        mins[:, at] = stored[len(scales) :]
