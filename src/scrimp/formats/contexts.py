"""Which table codes a weight: rows and columns of a matrix spread differently, and their product says how.

::

    std(i, k) ≈ r_i · c_k        class(i, k) = row_class[i] + col_class[k], in quarters of an octave of the spread
    table(i, k) = tables[class(i, k)]

Neighbouring classes share a table where that is smaller in total, tables and classes counted (the best division of the
classes into runs, by dynamic programming). A format with a scale per group has a flat spread: then one table is best
and no class is stored.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.formats import frequencies
from scrimp.formats.packing import TILE_ROWS

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

#: Codes are bytes.
LEVELS = 256
#: Classes told apart; those beyond both ends count as the ends.
CLASSES = 64
#: Classes per factor of two of a mean square: quarters of an octave of the spread.
_PER_OCTAVE = 2
#: About what one level of a table takes when it is stored, in bits: only the choice of runs depends on it.
_LEVEL_BITS = 5.0
#: Weights in one segment of a stream, which a thread decodes by itself.
_SEGMENT_WEIGHTS = 1 << 19
#: What a lane of a segment costs: 32 bits of state, of which an average of 8 say something about the codes.
_LANE_BITS = 24.0


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """The model of one matrix of codes, and what it costs."""

    row_class: U8  #: (N,); zeros where rows are alike
    col_class: U8  #: (K,)
    tables: U8  #: (classes,): which table a class uses
    stored: U8  #: (tables, levels): formats/frequencies.py
    code_bits: float  #: of the codes it was made for, under its tables

    @property
    def frequencies(self) -> NDArray[np.uint16]:
        return frequencies.frequencies(self.stored)

    def side(self) -> bytes:
        """As it is stored: which classes there are, the sizes of the tables, then classes and tables deflated."""
        flags = bool(self.row_class.any()) | bool(self.col_class.any()) << 1
        steps = np.diff(self.stored, axis=0, prepend=np.uint8(0))
        pieces = [self.tables, *(c for c in (self.row_class, self.col_class) if c.any()), steps.reshape(-1)]
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = deflate.compress(b"".join(piece.tobytes() for piece in pieces)) + deflate.flush()
        count, levels = self.stored.shape
        return bytes([flags, len(self.tables) - 1, count - 1, levels - 1]) + body


def segment_rows(rows: int, cols: int) -> int:
    """Rows in a segment: whole tiles of about half a million weights."""
    return min(-(-rows // TILE_ROWS), max(1, _SEGMENT_WEIGHTS // (TILE_ROWS * cols))) * TILE_ROWS


def overhead_bits(rows: int, cols: int) -> float:
    """What cutting a matrix into segments and lanes costs: about."""
    whole, rest = divmod(rows, segment_rows(rows, cols))
    lanes = whole * TILE_ROWS + min(rest, TILE_ROWS)
    return _LANE_BITS * lanes + 24 * (whole + (rest > 0))


def coded_bits(codes: U8, levels: int, numbers: NDArray[Any] | None = None, *, rows: int | None = None) -> float:
    """Bits that ``codes (N, K)`` uint8 take coded, tables and classes included: what the coder writes, to 0.5 %.

    ``numbers (levels,)`` is what each code means, where their order says nothing. With ``rows`` the codes are a sample
    of a matrix of so many rows. A store writes planes as they are where this is more than they take.
    """
    whole = len(codes) if rows is None else rows
    share = whole / len(codes)
    found = choose(codes, levels, numbers, share=share)
    side = len(found.side()) + (share - 1) * (_packed_bytes(found.row_class) if found.row_class.any() else 0)
    return found.code_bits * share + 8 * side + overhead_bits(whole, codes.shape[1])


def number_bits(values: NDArray[Any], *, share: float = 1.0) -> float:
    """Bits that scales or other numbers take, each byte of them coded by itself or, where that is less, raw.

    Each number stands for ``share`` like it.
    """
    by_byte = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    return sum(_lane_bits(np.ascontiguousarray(by_byte[:, at]), share) for at in range(values.itemsize))


def _lane_bits(data: U8, share: float) -> float:
    raw = 8.0 * len(data) * share
    if len(data) < TILE_ROWS:
        return raw
    lanes = lanes_of(data)
    overhead = overhead_bits(TILE_ROWS, int(lanes.shape[1] * share))
    return min(raw, _total(choose(lanes, LEVELS, share=share), share) + overhead)


def lanes_of(data: U8) -> U8:
    """Bytes as a matrix to code: every sixteenth in one row, the last repeated to fill the rows."""
    lanes = np.pad(data, (0, -len(data) % TILE_ROWS), mode="edge").reshape(-1, TILE_ROWS).T
    return np.ascontiguousarray(lanes)


def choose(codes: U8, levels: int, numbers: NDArray[Any] | None = None, *, share: float = 1.0) -> Contexts:
    """The smallest model of ``codes (N, K)``; each stands for ``share`` rows like it.

    ``numbers (levels,)``: what the codes mean; their own order by default.
    """
    no_rows, no_cols = (np.zeros(side, np.uint8) for side in codes.shape)
    counts = _core.count_codes(codes, no_rows, no_cols)[:, :levels].astype(np.float64)
    best = flat = _with(counts, no_rows, no_cols, share)
    best_bits = _total(best, share)
    row_class, col_class = _classes(codes, counts[0], numbers)
    for rows, cols in ((row_class, col_class), (row_class, no_cols), (no_rows, col_class)):
        found = _with(_core.count_codes(codes, rows, cols)[:, :levels].astype(np.float64), rows, cols, share)
        if rows is row_class and cols is col_class and len(found.stored) == 1:
            return flat  # both together tell nothing: neither will alone
        if (total := _total(found, share)) < best_bits:
            best, best_bits = found, total
    return best


def _total(found: Contexts, share: float) -> float:
    return found.code_bits * share + 8 * len(found.side())


def _classes(codes: U8, counts: F64, numbers: NDArray[Any] | None) -> tuple[U8, U8]:
    """Of rows and columns, from the mean squares of what the codes mean, about the mean of all."""
    levels = len(counts)
    values = np.arange(levels, dtype=np.float64) if numbers is None else np.asarray(numbers, np.float64)
    values = np.where(np.isfinite(values) & (counts > 0), values, 0.0)
    values /= np.abs(values).max() or 1.0
    squares = np.zeros(LEVELS, np.float32)
    squares[:levels] = (values - (counts @ values) / counts.sum()) ** 2
    row_means, col_means = _core.spreads(codes, squares)
    return _quantized(row_means), _quantized(col_means)


def _quantized(means: F64) -> U8:
    """Mean squares → classes from 0, at most 64 of them around the median."""
    with np.errstate(divide="ignore"):
        steps = np.rint(_PER_OCTAVE * np.log2(means))
    middle = np.median(steps[np.isfinite(steps)]) if np.isfinite(steps).any() else 0.0
    steps = np.clip(steps - middle, -CLASSES // 2, CLASSES // 2 - 1)
    found: U8 = (steps - steps.min()).astype(np.uint8)
    return found


def _with(counts: F64, row_class: U8, col_class: U8, share: float) -> Contexts:
    """The best tables for classes in which codes occur so often: ``counts (classes, levels)``."""
    first, last = _window(counts.sum(axis=1))
    inner = counts[first:last].copy()
    inner[0] += counts[:first].sum(axis=0)
    inner[-1] += counts[last:].sum(axis=0)
    begins = _runs(inner, share)
    merged = np.add.reduceat(inner, begins, axis=0)
    stored = frequencies.stored(merged)
    of_inner = np.searchsorted(begins, np.arange(len(inner)), "right") - 1
    tables = of_inner[np.clip(np.arange(len(counts)) - first, 0, len(inner) - 1)].astype(np.uint8)
    if len(begins) == 1:
        tables, row_class, col_class = tables[:1], np.zeros_like(row_class), np.zeros_like(col_class)
    return Contexts(row_class, col_class, tables, stored, frequencies.bits(merged, stored))


def _window(weights: F64) -> tuple[int, int]:
    """The run of up to 64 classes with most codes."""
    held = np.flatnonzero(weights)
    first, last = int(held[0]), int(held[-1]) + 1
    if last - first <= CLASSES:
        return first, last
    sums = np.convolve(weights, np.ones(CLASSES), "valid")
    first = int(sums.argmax())
    return first, first + CLASSES


def _runs(counts: F64, share: float) -> NDArray[np.intp]:
    """Where runs of classes ``(classes, levels)`` begin, so that codes and tables take the least; the first is 0."""
    classes = len(counts)
    upto = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    best, came = np.zeros(classes + 1), np.zeros(classes + 1, np.intp)
    for end in range(1, classes + 1):
        held = upto[end] - upto[:end]  # of the runs that begin at 0 … end - 1
        sums = held.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = np.where(sums > 0, sums * np.log2(sums), 0) - np.where(held > 0, held * np.log2(held), 0).sum(1)
        costs = best[:end] + share * entropy + _LEVEL_BITS * (held > 0).sum(axis=1) + 8
        costs[sums == 0] = np.inf
        came[end] = costs.argmin()
        best[end] = costs[came[end]]
    begins = []
    while classes:
        classes = int(came[classes])
        begins.append(classes)
    return np.array(begins[::-1])


def _packed_bytes(classes: U8) -> int:
    return len(zlib.compress(classes.tobytes(), 9))
