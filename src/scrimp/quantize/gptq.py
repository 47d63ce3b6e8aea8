"""GPTQ: weights are rounded one input after the other, and those still to come make up for the error made so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp._core import STRIP_ROWS
from scrimp.calibrate.statistics import Statistics
from scrimp.engine import default_threads, pick_isa
from scrimp.formats import Format
from scrimp.formats.code import F64, code_type
from scrimp.formats.scale_types import DTYPES, divisor
from scrimp.quantize.blocks import row_chunks
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.nearest import rounding_of
from scrimp.quantize.objective import DAMPING as DAMPING
from scrimp.quantize.objective import moments_of
from scrimp.quantize.pool import pool
from scrimp.quantize.quantized import Quantized
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32, QTensor, Stored

#: Each ten times the one before, if H still has no Cholesky factor.
ATTEMPTS = 6

T = TypeVar("T", bound=np.generic)


def quantize(
    weight: F32,
    format: Format,
    statistics: Statistics | None,
    *,
    damping: float = DAMPING,
    ordered: bool = True,
    levels: Levels | None = None,
    fisher: F64 | None = None,
) -> Quantized:
    """Choose codes so that the layer's *output* errs least, ``tr((W - Ŵ) H (W - Ŵ)ᵀ)``::

        H + damping·mean(diag H)·I = R Rᵀ        R upper triangular
        ŵ_k = nearest(w_k + Σ_{j<k} (w_j - ŵ_j) R_jk / R_kk)        the objective: Σ_k R_kk² (what this rounds off)²

    This is GPTQ with the errors of the original weights fed forward (LDLQ): the same codes in exact arithmetic, without
    H⁻¹. Scales and mins are chosen from weights that count R_kk² each: what an error costs when all that comes later
    makes up for it.

    Shapes
        weight (N, K), statistics of K inputs; the last group may be ragged
    Options
        ordered: inputs by descending H_kk, the strongest first. All scales are then chosen at the start, so that only
        the order of work changes and no index is stored. Else a group's scale is chosen when its first input comes,
        from weights that hold the feedback so far; of SmolLM2-135M that leaves 10 to 43 % more error.
        levels: where some were learned by another method.
        fisher (N, N): rows make up for each other's errors too, see yaqa.py. Then scales are chosen at the start.
    Edge cases
        An input that was never active (H_kk = 0) is rounded plainly and moves no other. Where H has no factor even with
        ``10^5`` times the damping, all weights are rounded plainly, and the result's notes say so.
    Source
        Frantar et al. 2022, arXiv:2210.17323, section 3; Chee et al. 2023, arXiv:2307.13304, section 3.2 and theorem 6
    """
    levels = levels_for(weight, format, "gptq") if levels is None else levels
    moments_of(statistics, weight, "gptq")
    assert statistics is not None
    factor = factor_of(statistics, damping, ordered)
    state = _State.start(weight, levels, factor)
    if fisher is None:
        state.run(ahead=ordered or not isinstance(format.block, int))
        return Quantized(state.tensor(), factor.notes)
    rows = factored(fisher, damping)
    state.choose_all()
    state.sweep_both(rows)
    return Quantized(state.tensor(), factor.notes + rows.notes)


def rounded(weight: F32, levels: Levels, factor: Factor, scales: Stored) -> QTensor:
    """``weight (N, K)`` with scales ``(groups, N)`` that are given, of a symmetric format."""
    state = _State.start(weight, levels, factor)
    state.scales[...] = scales
    state.sweep(0, state.cols)
    return state.tensor()


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """What all matrices that read the same inputs share."""

    order: NDArray[np.intp]  #: which input comes when
    feedback: F32  #: R_jk / R_kk at [k, j] (K, K): what input k takes of an earlier one's miss
    pivots: F32  #: R_kk²
    notes: tuple[str, ...]


_FACTORS: WeakKeyDictionary[Statistics, dict[tuple[float, bool], Factor]] = WeakKeyDictionary()


def factor_of(statistics: Statistics, damping: float = DAMPING, ordered: bool = True) -> Factor:
    """Made once: q, k and v have one and the same Statistics, and so have gate and up."""
    known = _FACTORS.setdefault(statistics, {})
    if (damping, ordered) not in known:
        known[damping, ordered] = factored(statistics.moments, damping, ordered)
    return known[damping, ordered]


def factored(moments: F64, damping: float = DAMPING, ordered: bool = True) -> Factor:
    """Of moments ``H (K, K)``; where they have no factor with any damping, of the identity, and the notes say so."""
    order = np.argsort(-moments.diagonal(), kind="stable") if ordered else np.arange(len(moments))
    factor, used = factorize(moments, damping, order)
    notes: tuple[str, ...] = ()
    if factor is None:
        notes = (f"H has no Cholesky factor with {used:g} of its mean diagonal added: rounded to nearest instead.",)
        factor = np.eye(len(order))
    elif used > damping:
        notes = (f"H needed {used:g} of its mean diagonal added before it had a Cholesky factor.",)
    diagonal = factor.diagonal().copy()
    factor /= diagonal  # in place: of wide layers this is the largest thing in memory
    feedback = factor.T.astype(np.float32, order="C")
    return Factor(order, feedback, np.square(diagonal).astype(np.float32), notes)


def factorize(
    moments: F64, damping: float = DAMPING, order: NDArray[np.intp] | None = None
) -> tuple[F64 | None, float]:
    """``R`` upper triangular with ``R Rᵀ = H + d·mean(diag H)·I``, and the ``d`` it took; None where nothing helped.

    Inputs that were never active get the mean of the others' diagonal: any number would do. With an ``order``, of the
    inputs of H in that order. Memory: one more array as large as H.
    """
    backwards = (np.arange(len(moments)) if order is None else order)[::-1]
    diagonal = moments.diagonal()[backwards]
    alive = diagonal > 0
    mean = float(diagonal[alive].mean()) if alive.any() else 1.0
    share = damping
    for attempt in range(ATTEMPTS):
        share = damping * 10.0**attempt
        lower = moments[np.ix_(backwards, backwards)]
        np.fill_diagonal(lower, np.where(alive, diagonal, mean) + share * mean)
        if _core.cholesky(lower, default_threads(), pick_isa()) and np.isfinite(lower.diagonal()).all():
            return lower[::-1, ::-1], share
    return None, share


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """Weights on their way to codes. Rows lie in strips, inputs in the order of work: ``(strips, K, STRIP_ROWS)``."""

    levels: Levels
    factor: Factor
    rows: int  #: N; strips are padded with zeros
    weights: F32  #: the original's; of inputs that are done w - ŵ
    codes: NDArray[np.uint16]
    scales: Stored  #: (groups, N), or (1, 1)
    mins: Stored | None

    @classmethod
    def start(cls, weight: F32, levels: Levels, factor: Factor) -> _State:
        (rows, cols), format = weight.shape, levels.format
        assert format.scale is not None
        strips = np.zeros((-(-rows // STRIP_ROWS), cols, STRIP_ROWS), np.float32)
        for at, strip in enumerate(strips):
            part = weight[at * STRIP_ROWS : (at + 1) * STRIP_ROWS]
            strip[:, : len(part)] = part[:, factor.order].T
        shape = (1, 1) if format.block == "tensor" else (format.groups(cols), rows)
        scales, mins = (np.zeros(shape, DTYPES[format.scale]) for _ in range(2))
        codes = np.empty(strips.shape, np.uint16)
        return cls(levels, factor, rows, strips, codes, scales, mins if format.has_min else None)

    def run(self, *, ahead: bool) -> None:
        """All scales first, or each when its group's turn comes: then inputs go in their own order."""
        if ahead:
            self.choose_all()
            self.sweep(0, self.cols)
            return
        for group, begin in enumerate(range(0, self.cols, self.size)):
            end = min(begin + self.size, self.cols)
            fed = self.factor.feedback[begin:end, :begin] @ self.weights[:, :begin]
            self.choose(group, self._rows(self.weights[:, begin:end] + fed))
            self.sweep(begin, end)

    @property
    def cols(self) -> int:
        return len(self.factor.order)

    @property
    def size(self) -> int:
        return self.levels.format.group(self.cols)

    def choose_all(self) -> None:
        for group in range(len(self.scales)):
            self.choose(group, self._members(self.weights, group))

    def choose(self, group: int, target: F32) -> None:
        """Scales of a group, from its weights ``(G, N)`` as they are now."""
        pivots = self.factor.pivots[self.factor.order // self.size == group]
        if self.levels.format.block == "tensor":
            self._put(group, slice(None), *choose(target, self.levels, pivots, whole=True))
            return

        def work(rows: slice) -> None:
            self._put(group, rows, *choose(target[:, rows], self.levels.rows(rows), pivots))

        list(pool().map(work, row_chunks(target.shape[1], len(target))))

    def sweep(self, begin: int, end: int) -> None:
        """Round inputs ``begin … end`` of all rows; rows are independent, so any number of threads gives the same."""
        scale, low = self._padded(self.levels.value(self.scales)), self.levels.low(self.mins)
        low, over = None if low is None else self._padded(low), divisor(scale)
        group = (self.factor.order // self.size).astype(np.int32)
        rounding, isa, feedback = rounding_of(self.levels), pick_isa(), self.factor.feedback

        def work(strip: int) -> None:
            _core.sweep(rounding, self.weights, feedback, group, scale, over, low, self.codes, begin, end, strip,
                        strip + 1, isa)  # fmt: skip

        list(pool().map(work, range(len(self.weights))))

    def sweep_both(self, rows: Factor) -> None:
        """Round all inputs, of each one row after the other in the order of ``rows``."""
        codes = np.zeros(self.codes.shape[::2] + self.codes.shape[1:2], np.uint16)  # (strips, STRIP_ROWS, K)
        wide = codes.reshape(-1, self.cols)

        def in_order(values: F32 | None) -> F32 | None:
            if values is None:
                return None
            return np.ascontiguousarray(np.broadcast_to(values, (len(values), self.rows))[:, rows.order], np.float32)

        scale = in_order(self.levels.value(self.scales))
        assert scale is not None
        weights = np.ascontiguousarray(self._rows(self.weights).T[rows.order])
        found = np.empty(weights.shape, np.uint16)
        _core.sweep_both(
            rounding_of(self.levels), weights, self.factor.feedback, rows.feedback,
            (self.factor.order // self.size).astype(np.int32), scale, divisor(scale),
            in_order(self.levels.low(self.mins)), found, pick_isa(),
        )  # fmt: skip
        wide[rows.order] = found
        self.codes[...] = codes.transpose(0, 2, 1)

    def tensor(self) -> QTensor:
        codes = np.empty((self.rows, self.cols), code_type(self.levels.format.element.bits))
        codes[:, self.factor.order] = self._rows(self.codes).T
        return self.levels.tensor(codes.T, self.scales, self.mins)

    def _put(self, group: int, rows: slice, scales: Stored, mins: Stored | None) -> None:
        self.scales[group, rows] = scales
        if self.mins is not None and mins is not None:
            self.mins[group, rows] = mins

    def _members(self, strips: F32, group: int) -> F32:
        return self._rows(strips[:, np.flatnonzero(self.factor.order // self.size == group)])

    def _rows(self, strips: NDArray[T]) -> NDArray[T]:
        """Strips as ``(inputs, N)``."""
        return strips.transpose(1, 0, 2).reshape(strips.shape[1], -1)[:, : self.rows]

    def _padded(self, values: F32) -> F32:
        """``(groups, N)`` or ``(1, 1)`` → a value for each row of all strips."""
        wide = np.zeros((len(values), len(self.weights) * STRIP_ROWS), np.float32)
        wide[:, : self.rows] = values
        return wide
