"""Entropy-constrained quantization: one step for a whole matrix, as fine as its rate in *coded* bits allows.

A grid that spans all of a matrix is wasteful where codes have a fixed width, and the best there is where they are
entropy-coded: frequent codes take less than a bit, rare ones many. At equal bytes the error is a third smaller than
with a scale per group, which flattens the histogram that the coder lives from (docs/notes/009).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.formats.contexts import coded_bits
from scrimp.quantize.fold import Group, Scaling
from scrimp.quantize.gptq import Factor, factor_of, factored, rounded
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.objective import moments_of
from scrimp.quantize.quantized import Quantize, Quantized
from scrimp.tensors import F32, Stored

#: Rates that make sense: bits per weight of the codes alone.
RATES = (0.5, 7.5)
#: The rate is met to this many bits per weight …
TOLERANCE = 0.003
#: … in so many roundings of the matrix at most.
ATTEMPTS = 4
#: Rows that a first guess of the step looks at.
SAMPLE_ROWS = 512
#: A row's step is at least its largest weight over this, so that feedback has room before codes saturate.
REACH = 110
#: The Statistics of a matrix that embeds as well: share of plain squared error in its objective.
PLAIN = 0.1
#: No input is scaled by more than this beside the others, or by less than its inverse.
FURTHEST = 16.0
#: Weights beyond this many times their root mean square are not scaled up.
LARGEST = 16.0
#: Rounds of that: what one input gives up lowers the mean square that bounds the others.
LIMITINGS = 12
#: A logit that costs less than this share of the mean counts as if it did that much.
FLOOR = 0.01
#: The rows of a head have steps ∝ cost^-this. 1/2 is best on the calibration's own kind of text; a quarter leaves words
#: usable that are rare there and not elsewhere (SmolLM2 at 2.6 bits, calibrated on a novel: KL on WikiText-2 0.084
#: instead of 0.125).
POWER = 0.25


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """What a matrix is rounded under: the factor of its moments and how fine each row is, relative to the others."""

    factor: Factor
    relative: F64  #: (N,), of geometric mean 1

    @property
    def pivots(self) -> float:
        """``Σ R_kk²``: the output error of a row whose weights miss one each, after feedback."""
        return float(self.factor.pivots.sum(dtype=np.float64))

    def errors(self, missed: F32) -> F64:
        """``(w - ŵ) H (w - ŵ)ᵀ`` of every row, over its step squared: ``(N,)``."""
        seen = (missed[:, self.factor.order] @ self.factor.feedback.T) * np.sqrt(self.factor.pivots)
        return np.asarray(np.square(seen, dtype=np.float64).sum(axis=1) / np.square(self.relative))


def quantize(weight: F32, format: Format, statistics: Statistics | None, *, bits: float) -> Quantized:
    """Codes of ``bits`` coded bits per weight with the least output error, ``tr((W - Ŵ) H (W - Ŵ)ᵀ)``.

    All rows share one step, which is optimal for that objective whatever the rows' spreads (reverse water-filling);
    the coder's tables know the spreads. Rows of a head have finer steps where a logit's error costs more. The step is
    searched until the codes, chosen as GPTQ does, take ``bits`` under the coder's own count.

    Shapes
        weight (N, K); ``format`` a symmetric integer one with a scale per row
    Source
        Entropy-constrained scalar quantization: Chou, Lookabaugh & Gray 1989; reverse water-filling: Cover & Thomas,
        section 10.3; feedback: gptq.py. Their combination here, ours.
    """
    levels = levels_of_rows(weight, format)
    aim = objective(weight, statistics)
    step, slope = guess(weight, levels, aim.relative, bits), -1.0  # bits per octave of the step, at a high rate
    before: tuple[float, float] | None = None
    for _ in range(ATTEMPTS):
        scales = steps(weight, levels, step * aim.relative)
        tensor = rounded(weight, levels, aim.factor, scales)
        found = coded_bits(tensor.codes(), format.element.levels) / weight.size
        if abs(found - bits) <= TOLERANCE:
            break
        if before is not None and step != before[0]:
            slope = min((found - before[1]) / float(np.log2(step / before[0])), -0.1)
        before = step, found
        step *= 2.0 ** ((bits - found) / slope)
    notes = aim.factor.notes
    if abs(found - bits) > 10 * TOLERANCE:
        notes = (
            *notes,
            f"the codes take {found:.3f} bits per weight instead of {bits:g}: {format.name} has no others.",
        )
    return Quantized(tensor, notes)


def levels_of_rows(weight: F32, format: Format) -> Levels:
    """The Levels, or UsageError for formats that this says nothing about."""
    if format.element.kind != "int" or format.has_min or format.block != "row" or format.second is not None:
        raise UsageError(f"ecsq chooses one step for all weights, which {format.name} has no use for.",
                         hint="--format int8:row, with --pack")  # fmt: skip
    return levels_for(weight, format, "ecsq")


def objective(weight: F32, statistics: Statistics | None) -> Objective:
    """Without Statistics all errors count alike."""
    relative, cols = np.ones(len(weight)), weight.shape[1]
    if statistics is None:
        return Objective(factored(np.eye(cols)), relative)
    moments = moments_of(statistics, weight, "ecsq")
    if statistics.logits and statistics.sample is not None:
        moments = moments + PLAIN * np.trace(moments) / cols * np.eye(cols)
        return Objective(factored(moments), _relative_steps(weight, statistics.sample))
    return Objective(factor_of(statistics), relative)


def waterfill(
    group: Group,
    weights: Mapping[str, F32],
    statistics: Statistics,
    formats: Mapping[str, Format],
    rounds: Mapping[str, Quantize],
) -> Scaling:
    """Inputs scaled so that one step for all of them is nearly the best step for each: ``s_k = √R_kk``.

    An error at input k, made up for by all that come later, costs R_kk². At a high rate the least error for given bits
    has steps ∝ 1/R_kk; the square root of that has most of the gain, and needs few codes beyond eight bits. No input's
    weights may come to exceed ``LARGEST`` times the mean square of all, which would widen the grid for one of them.

    Source
        Reverse water-filling, Cover & Thomas, section 10.3, on the pivots of LDLQ: ours
    """
    factor = factor_of(statistics)
    s = np.empty(group.width)
    s[factor.order] = np.clip(_normal(np.sqrt(np.sqrt(factor.pivots.astype(np.float64)))), 1 / FURTHEST, FURTHEST)
    peaks = np.max([np.abs(weight).max(axis=0) for weight in weights.values()], axis=0)
    squares = np.mean([np.square(weight, dtype=np.float64).mean(axis=0) for weight in weights.values()], axis=0)
    for _ in range(LIMITINGS):
        limit = LARGEST * np.sqrt((squares * s * s).mean())
        s = np.minimum(s, np.divide(limit, peaks, out=np.full(group.width, np.inf), where=peaks > 0))
    return Scaling(s.astype(np.float32), factor.notes)


def _relative_steps(weight: F32, inputs: F32) -> F64:
    """Steps ∝ cost^-POWER, the cost of a logit's error its mean p (1 - p) over the inputs of a head ``(T, K)``: its
    share in the curvature of the KL."""
    curvature = np.zeros(len(weight))
    for x in np.array_split(inputs, max(1, len(inputs) // 64)):
        logits = x @ weight.T
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        curvature += (logits * (1 - logits)).sum(axis=0)
    curvature = np.maximum(curvature, FLOOR * curvature.mean())
    return _normal(curvature**-POWER)


def _normal(steps: F64) -> F64:
    return np.asarray(steps / np.exp(np.log(steps).mean()))


def steps(weight: F32, levels: Levels, wanted: F64) -> Stored:
    """The scales ``(1, N)`` as stored: ``wanted``, but coarse enough for every weight to have a code."""
    reach = np.abs(weight).max(axis=1) * (127 / REACH / (levels.format.element.levels // 2 - 1))
    return levels.grid.nearest(np.maximum(wanted, reach)[None])


def guess(weight: F32, levels: Levels, relative: F64, bits: float) -> float:
    """The step at which plain rounding has this rate, on some rows."""
    rows = np.linspace(0, len(weight) - 1, min(len(weight), SAMPLE_ROWS)).astype(np.intp)
    step = float(np.sqrt(np.square(weight, dtype=np.float64).mean())) * 2.0 ** (2.05 - bits)
    for _ in range(4):
        step *= 2.0 ** (rate(weight, levels, step * relative, rows)[0] - bits)
    return float(step)


def rate(weight: F32, levels: Levels, wanted: F64, rows: NDArray[np.intp]) -> tuple[float, float]:
    """Of plain rounding with steps ``wanted (N,)``, on some ``rows``: coded bits per weight, and the mean of
    ``(what was rounded off / step)²``."""
    some = weight[rows]
    part = levels.rows(slice(0, len(rows)))
    scales = part.value(steps(some, part, wanted[rows])[0])
    codes = part.codes(np.ascontiguousarray(some.T), scales)
    missed = np.square((some - part.values(codes, scales).T) / wanted[rows, None], dtype=np.float64).mean()
    taken = coded_bits(np.ascontiguousarray(codes.T), levels.format.element.levels, rows=len(weight))
    return taken / weight.size, float(missed)
