"""AdaRound: whether each weight goes up or down is learned, all at once, by what the layer puts out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.formats.code import F64, Codes, code_type
from scrimp.quantize import rtn
from scrimp.quantize.blocks import FRESH, row_chunks
from scrimp.quantize.fallback import or_plain
from scrimp.quantize.grid import Levels, Parts, levels_of, refuse
from scrimp.quantize.importance import weighted_start
from scrimp.quantize.objective import damped, moments_of
from scrimp.quantize.pool import pool
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32

#: Ends of the stretched sigmoid, beyond 0 and 1 so that both can be reached.
GAMMA, ZETA = -0.1, 1.1
STEPS, RATE = 240, 0.1
#: Steps without the regulariser, as a share; then its exponent falls from ``BETA[0]`` to ``BETA[1]``.
WARM_UP, BETA = 0.2, (20.0, 2.0)
#: What the regulariser weighs, in units of the curvature of the objective at each weight.
PRESSURE = 1.0
#: Steps between evaluations of the hard codes.
EVERY = 20
_B1, _B2, _TINY = 0.9, 0.999, 1e-8


def quantize(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """Every weight goes to the level below or above it, so that ``tr((W - Ŵ) H (W - Ŵ)ᵀ)`` is small::

        ŵ = below + h·(above - below)        h = clip(1.2·sigmoid(v) - 0.1, 0, 1), at first so that ŵ = w
        v by Adam on the objective + pressure·Σ_k H_kk (above - below)²(1 - |2h - 1|^β)

    The gradient ``-2 (W - Ŵ) H`` is in closed form. β falls from 20 to 2, which drives each h to 0 or 1. Codes are
    those of ``h ≥ ½``; they are evaluated all along, and the best of every row are kept. Scales are chosen as GPTQ
    chooses them and stay.

    Shapes
        weight (N, K), statistics of K inputs; the last group may be ragged
    Error
        No row errs more than after ``rtn``: one that would is rounded to nearest, and a note counts them.
    Edge cases
        Weights beyond the last level have only that one. Inputs that were never active are rounded to nearest.
    Source
        Nagel et al. 2020, arXiv:2004.10568, equations 21 to 25. There the regulariser weighs 0.01 for every weight;
        in units of the curvature it treats strong and weak inputs alike, and no unit matters.
    """
    refuse(format, "adaround")
    moments = moments_of(statistics, weight, "adaround")
    plain = rtn.quantize(weight, format)
    levels = levels_of(plain, "adaround")
    start = weighted_start(weight, levels, moments)
    w = np.ascontiguousarray(weight.T, np.float32)
    h = damped(moments).astype(np.float32)
    codes = np.empty_like(start.codes)

    def work(at: slice) -> None:
        codes[:, at] = _anneal(w[:, at], start.rows(at), levels.rows(at), h)

    list(pool().map(work, row_chunks(len(weight), weight.shape[1], FRESH)))
    return or_plain(plain, Parts(codes, start.scales, start.mins), weight, moments, levels)


@dataclass(frozen=True, slots=True, eq=False)
class _Choices:
    """Between which two levels each weight lies: codes, values, all ``(K, n)``."""

    codes: tuple[Codes, Codes]
    below: F32
    span: F32  #: from the level below to that above; 0 where there is no choice

    def hard(self, up: NDArray[np.bool_]) -> Codes:
        return np.where(up, self.codes[1], self.codes[0])


def choices(w: F32, parts: Parts, levels: Levels) -> _Choices:
    """The levels around each weight; in code steps, so a negative scale turns them round."""
    group = np.arange(len(w)) // levels.format.group(len(w))
    scale, low = levels.value(parts.scales)[group], levels.low(parts.mins)
    low = None if low is None else low[group]
    codes = np.arange(levels.format.element.levels).astype(code_type(levels.format.element.bits))
    numbers = levels.numbers(codes)
    known = np.flatnonzero(np.isfinite(numbers))
    numbers, first = np.unique(numbers[known], return_index=True)
    codes = codes[known[first]]
    safe = np.where(scale == 0, np.float32(np.inf), scale)
    with np.errstate(over="ignore"):
        at = np.clip(np.searchsorted(numbers, (w if low is None else w - low) / safe, "right") - 1, 0, len(codes) - 2)
    pair = codes[at], codes[at + 1]
    below, above = (levels.values(c, scale, low) for c in pair)
    return _Choices(pair, below, above - below)


def _anneal(w: F32, parts: Parts, levels: Levels, moments: F32) -> Codes:
    between = choices(w, parts, levels)
    rest, span = w - between.below, between.span
    curve = np.square(span) * moments.diagonal()[:, None]
    mean = curve.mean(axis=0)
    unit = np.where(mean > 0, mean, np.float32(1))
    push = PRESSURE * curve / unit
    share = np.clip(np.divide(rest, span, out=np.zeros_like(rest), where=span != 0), 0.01, 0.99)
    v = -np.log((ZETA - GAMMA) / (share - GAMMA) - 1)
    up, best, least = share >= 0.5, share >= 0.5, _errors(rest - span * (share >= 0.5), moments)
    first, second = np.zeros_like(v), np.zeros_like(v)
    warm = int(WARM_UP * STEPS)
    for step in range(1, STEPS + 1):
        sigmoid = 1 / (1 + np.exp(-v))
        raw = (ZETA - GAMMA) * sigmoid + GAMMA
        h = np.clip(raw, 0, 1)
        slope = (moments @ (h * span - rest)) * (span * (2 / unit))
        if step > warm:
            beta = BETA[0] + (BETA[1] - BETA[0]) * (step - warm) / (STEPS - warm)
            away = 2 * h - 1
            slope -= push * np.float32(2 * beta) * np.copysign(np.abs(away) ** np.float32(beta - 1), away)
        slope *= sigmoid * (1 - sigmoid) * ((raw > 0) & (raw < 1))
        first += (1 - _B1) * (slope - first)
        second += (1 - _B2) * (np.square(slope) - second)
        v -= RATE * (first / (1 - _B1**step)) / (np.sqrt(second / (1 - _B2**step)) + _TINY)
        if step % EVERY == 0:
            up = v >= 0
            errors = _errors(rest - span * up, moments)
            best, least = np.where(errors < least, up, best), np.fmin(errors, least)
    return between.hard(best)


def _errors(off: F32, moments: F32) -> F64:
    return np.asarray(np.einsum("kn,kn->n", off, moments @ off), np.float64)
