"""Swaps: one code of a block moves a level up or down, and its scale follows at once; the best move first."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.formats.code import F64, Codes
from scrimp.formats.format import SIGNED_SCALES
from scrimp.quantize import descent, refit
from scrimp.quantize.blocks import FRESH, row_chunks
from scrimp.quantize.grid import Levels, Parts, levels_of, parts_of
from scrimp.quantize.objective import damped, moments_of
from scrimp.quantize.pool import pool
from scrimp.tensors import F32, QTensor

#: Times that all blocks are visited.
PASSES = 2
#: A move must gain this share of what the block's weights explain, which float32 sums can tell apart.
LEAST_GAIN = 1e-5


def refine(tensor: QTensor, weight: F32, statistics: Statistics | None) -> QTensor:
    """Descent, then block by block the single code whose move, *with the block's best scale after it*, gains most::

        of a block with codes' values q:   error = const - (q c)² / (q H q)       c = H (w - what other blocks give)
        move k by δ:   q c + δ c_k         q H q + 2 δ (H q)_k + δ² H_kk

    until none gains; all moves of a block are judged in closed form, K at once. Descent holds scales while it moves
    codes, and so stops where a code and a scale would have to change together: what matters with few levels. Refitted
    in the end.

    Shapes
        weight (N, K), which ``tensor`` was made of; statistics of K inputs
    Error
        No row errs more than after descent, and so than before; levels that were learned as there.
    Edge cases
        Scales of 8 bits and fewer, mins, and one scale for a tensor can't follow by themselves: there it is descent.
    Source
        Ours; elimination of the scale as in alternating ternary schemes, with the exact step of Behdin et al. 2023,
        arXiv:2309.01885, under H
    """
    moments = moments_of(statistics, weight, "swap")
    better = descent.refine(tensor, weight, statistics)
    format = tensor.format
    if format.scale not in SIGNED_SCALES or format.has_min or format.block == "tensor":
        return better
    levels = levels_of(better, "swap")
    parts = parts_of(better, levels)
    w, h = np.ascontiguousarray(weight.T, np.float32), damped(moments).astype(np.float32)
    codes, scales = parts.codes.copy(), parts.scales.copy()

    def work(at: slice) -> None:
        found = _visit(w[:, at], parts.rows(at), levels, h)
        codes[:, at], scales[:, at] = found.codes, found.scales

    list(pool().map(work, row_chunks(len(weight), weight.shape[1], FRESH)))
    found = refit.solve(replace(parts, codes=codes, scales=scales), weight, moments, levels)
    kept = refit.keep_better(better, parts, found, weight, moments, levels)
    return refit.refine(kept, weight, statistics)


def _visit(w: F32, parts: Parts, levels: Levels, moments: F32) -> Parts:
    codes, scales = parts.codes.copy(), parts.scales.copy()
    steps = _steps(levels)
    group = levels.format.group(len(w))
    values = levels.values(codes, levels.value(scales)[np.arange(len(w)) // group])
    slope = moments @ (w - values)
    for _ in range(PASSES):
        for g, begin in enumerate(range(0, len(w), group)):
            at = slice(begin, min(begin + group, len(w)))
            block = moments[at, at]
            target = slope[at] + block @ values[at]
            moved, best = _settle(codes[at], target, block, levels, steps)
            stored = levels.grid.nearest(best)
            now = levels.values(moved, levels.value(stored))
            change = now - values[at]
            gain = np.einsum("gn,gn->n", change, 2 * target - block @ (now + values[at]))
            better = (gain > 0) & np.isfinite(best)
            codes[at] = np.where(better, moved, codes[at])
            scales[g] = np.where(better, stored, scales[g])
            change *= better
            values[at] += change
            slope -= moments[:, at] @ change
    return replace(parts, codes=codes, scales=scales)


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """From each code to the one a level up and the one a level down: the code, and by how much its value changes."""

    codes: tuple[Codes, Codes]
    changes: tuple[F32, F32]  #: NaN where there is no further level


def _steps(levels: Levels) -> _Steps:
    every = np.arange(levels.format.element.levels)
    numbers = levels.numbers(every.astype(np.uint16))
    order = np.argsort(numbers, kind="stable")
    order = order[np.isfinite(numbers[order])]
    tables, changes = [], []
    for here, there in ((order[:-1], order[1:]), (order[1:], order[:-1])):
        table, change = every.astype(np.uint16), np.full(len(every), np.nan, np.float32)
        table[here], change[here] = there, numbers[there] - numbers[here]
        tables.append(table)
        changes.append(change)
    return _Steps((tables[0], tables[1]), (changes[0], changes[1]))


def _settle(codes: Codes, target: F32, block: F32, levels: Levels, steps: _Steps) -> tuple[Codes, F64]:
    """Codes ``(G, n)`` that no single move improves, each judged with its own best scale; and those scales ``(n,)``."""
    codes, numbers = codes.copy(), levels.numbers(codes)
    seen = block @ numbers
    rows = np.arange(codes.shape[1])  # those that still move
    curve = block.diagonal()[:, None]
    with np.errstate(all="ignore"):
        for _ in range(2 * len(codes)):
            q, u, c = numbers[:, rows], seen[:, rows], target[:, rows]
            fit, size = np.einsum("gn,gn->n", q, c), np.einsum("gn,gn->n", q, u)
            now = np.where(size > 0, fit * fit / size, 0)
            moves = [_gains(change[codes[:, rows]], fit, size, u, c, curve) for change in steps.changes]
            best = np.where(moves[0] >= moves[1], *moves)
            at = best.argmax(axis=0)
            some = np.arange(len(rows))
            improves = best[at, some] > now + LEAST_GAIN * np.abs(now)
            if not improves.any():
                break
            way = (moves[1] > moves[0])[at, some][improves].astype(int)
            rows, at = rows[improves], at[improves]
            before = codes[at, rows]
            codes[at, rows] = np.where(way == 0, steps.codes[0][before], steps.codes[1][before])
            delta = np.where(way == 0, steps.changes[0][before], steps.changes[1][before])
            numbers[at, rows] += delta
            seen[:, rows] += block[:, at] * delta
        fit, size = np.einsum("gn,gn->n", numbers, target), np.einsum("gn,gn->n", numbers, seen)
        return codes, np.where(size > 0, fit / size, 0).astype(np.float64)


def _gains(change: F32, fit: F32, size: F32, seen: F32, target: F32, curve: F32) -> NDArray[np.float32]:
    """``(q c)² / (q H q)`` after each possible move ``(G, n)``; -1 where there is none."""
    after = fit + change * target
    gain = after * after / (size + change * (2 * seen + change * curve))
    return np.where(np.isfinite(gain), gain, np.float32(-1))
