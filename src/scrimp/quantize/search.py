"""The scales (and mins) of integer codes with the least squared error, by search over clipping ratios.

For fixed codes the best scale is a least-squares fit, so a candidate is judged by the error *after* that fit:
``Σw² - (Σwq)²/Σq²`` is least where ``(Σwq)²/Σq²`` is greatest. A coarse scan finds each block's best ratio, a fine one
searches around it. The winner's fit is then rounded to its stored type, codes are computed again with it and fitted
again, and of all these, and of the plain scale that clips nothing, the one with the least error *as stored* is kept.

Error: the squared error is within 0.5 % (symmetric; 2 % for blocks far from zero) and 1.5 % (with mins) of brute force
up to 4 bits on Gaussian and heavy-tailed weights; tests/quantize/test_search.py.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from scrimp import _core
from scrimp.engine import pick_isa
from scrimp.formats.code import F64
from scrimp.formats.scale_types import at_least, at_most, to_nearest
from scrimp.quantize.blocks import Blocks
from scrimp.tensors import F32, Stored, to_f32

#: Symmetric: |w| at which codes end, as a fraction of the largest |w| of the block, inverted: 0.7 … 4.
COARSE = np.geomspace(0.7, 4.0, 12)
FINE = 1 + (COARSE[1] / COARSE[0] - 1) * np.linspace(-1, 1, 14)[1:-1]
#: Asymmetric: how far from the mean codes end, as fractions of the farthest weight on each side.
COARSE_ENDS = tuple(product((1.0, 0.8, 0.6, 0.35), repeat=2))
FINE_ENDS = tuple(product((0.9, 0.95, 1.0, 1.05, 1.1), repeat=2))
#: Least-squares fits after the scan, each to the codes of the one before.
FITS = 2

_DOT = "gm,gm->m"


def plain_symmetric(blocks: Blocks, bits: int, kind: str) -> Stored:
    """``max|w| / (2^(b-1) - 1)`` rounded up, so that nothing is clipped; 0 for an all-zero block."""
    return at_least(_peaks(blocks) / (2 ** (bits - 1) - 1), kind)


def plain_asymmetric(blocks: Blocks, bits: int, kind: str) -> tuple[Stored, Stored]:
    """``min w`` rounded down and ``(max w - min) / (2^b - 1)`` rounded up, so that nothing is clipped."""
    mins = at_most(blocks.least(), kind)
    return at_least((blocks.greatest() - to_f32(mins, kind)) / (2**bits - 1), kind), mins


def best_symmetric(blocks: Blocks, bits: int, kind: str) -> Stored:
    """Scales ``(M,)`` of either sign: a negative one gives the extra code ``-2^(b-1)`` to the side that needs it."""
    half, peaks = 2 ** (bits - 1), _peaks(blocks)
    fit = _scan_of_pieces(blocks, half, peaks) if blocks.whole else np.empty(peaks.shape)
    if not blocks.whole:
        _core.scan_symmetric(blocks.pieces[0], half, peaks, COARSE, FINE, fit, pick_isa())
    scales = plain_symmetric(blocks, bits, kind)
    error = _symmetric_sums(blocks, half, to_f32(scales, kind))[2]
    for _ in range(FITS):
        trial = to_nearest(_finite(fit), kind)
        products, squares, trial_error = _symmetric_sums(blocks, half, to_f32(trial, kind))
        scales, error = np.where(trial_error < error, trial, scales), np.fmin(trial_error, error)
        fit = products / squares
    return scales


def _scan_of_pieces(blocks: Blocks, half: int, peaks: F64) -> F64:
    """As ``core/scan.h`` scans, of one block in several pieces: the best fit ``(1,)``, signed."""
    gain, fit, ratio = np.zeros(peaks.shape), np.zeros(peaks.shape), np.ones(peaks.shape)
    codes = {1: _core.Rounding.integers(-half, half - 1), -1: _core.Rounding.integers(1 - half, half)}

    def scan(candidate: F64) -> None:
        scales = (peaks / (candidate * half)).astype(np.float32)
        found = blocks.totals(lambda w, _: np.concatenate([_core_sums(codes[sign], w, scales) for sign in codes]))
        for sign, square, product_ in ((1, found[2], found[3]), (-1, found[6], found[7])):
            candidate_fit = product_ / square
            candidate_gain = product_ * candidate_fit
            better = candidate_gain > gain
            np.copyto(gain, candidate_gain, where=better)
            np.copyto(fit, sign * candidate_fit, where=better)
            np.copyto(ratio, candidate, where=better)

    for factor in COARSE:
        scan(np.full(peaks.shape, factor))
    around = ratio.copy()
    for factor in FINE:
        scan(around * factor)
    return fit


def best_asymmetric(blocks: Blocks, bits: int, kind: str) -> tuple[Stored, Stored]:
    """Scales and mins, each ``(M,)``. Searched on weights less their mean, where float32 sums lose least."""
    top, size = 2**bits - 1, blocks.size
    mean = (blocks.totals(lambda w, _: w.sum(axis=0)[None])[0] / size).astype(np.float32)
    centred = replace(blocks, pieces=tuple(piece - mean for piece in blocks.pieces))
    mean = mean.astype(np.float64)
    below, above = blocks.least() - mean, blocks.greatest() - mean
    gain, best = np.zeros(mean.shape), np.zeros((3, *mean.shape))
    ends = np.ones((2, *mean.shape))

    rounding = _core.Rounding.integers(0, top)

    def scan(candidate: F64) -> None:
        start, end = candidate[0] * below, candidate[1] * above
        scales, lows = ((end - start) / top).astype(np.float32), start.astype(np.float32)
        trial = centred.totals(lambda w, _: _core_sums(rounding, w, scales, lows)[1:])[[0, 2, 1]]
        codes, products, squares = trial
        trial_gain = products * products / (squares - codes * codes / size)
        better = trial_gain > gain
        np.copyto(gain, trial_gain, where=better)
        np.copyto(best, trial, where=better)
        np.copyto(ends, candidate, where=better)

    def fitted(sums: F64) -> tuple[Stored, Stored]:
        """The least-squares line through the codes; its scale again once the min is rounded."""
        codes, products, squares = sums
        slope = products / (squares - codes * codes / size)
        mins = to_nearest(_finite(mean - slope * codes / size), kind)
        return to_nearest(_finite((products + (mean - to_f32(mins, kind)) * codes) / squares), kind), mins

    for factors in COARSE_ENDS:
        scan(np.array(factors)[:, None] * np.ones(ends.shape))
    around = ends.copy()
    for factors in FINE_ENDS:
        scan(np.array(factors)[:, None] * around)

    scales, mins = plain_asymmetric(blocks, bits, kind)
    error = _asymmetric_sums(centred, top, scales, mins, mean, kind)[3]
    for _ in range(FITS):
        trial_scales, trial_mins = fitted(best)
        *sums, trial_error = _asymmetric_sums(centred, top, trial_scales, trial_mins, mean, kind)
        best = np.stack(sums)
        better = trial_error < error
        scales, mins = np.where(better, trial_scales, scales), np.where(better, trial_mins, mins)
        error = np.fmin(error, trial_error)
    return scales, mins


def divisor(scales: F32) -> F32:
    """What weights are divided by: the scale, or infinity where it is 0, so that the code is the one of zero."""
    return np.where(scales == 0, np.float32(np.inf), scales)


def _core_sums(rounding: _core.Rounding, w: F32, scales: F32, lows: F32 | None = None) -> F32:
    """``Σ(w - ŵ)², Σc, Σc², Σwc`` of every column, c the rounded ``(w - low) / scale``: ``(4, M)``."""
    count, isa = w.shape[1], pick_isa()
    scales = np.broadcast_to(scales, count)
    starts = None if lows is None else np.ascontiguousarray(np.broadcast_to(lows, count))
    sums, ones = np.empty((4, count), np.float32), np.ones(len(w), np.float32)
    _core.weighted_sums(rounding, w, ones, np.ascontiguousarray(scales), divisor(scales), starts, sums, isa)
    return sums


def _symmetric_sums(blocks: Blocks, half: int, scales: F32) -> F64:
    """``Σwq, Σq², Σ(w - scale·q)²`` with codes of ``scales``: ``(3, M)``."""

    def sums(w: F32, q: F32) -> F32:
        np.divide(w, divisor(scales), out=q)
        np.rint(q, out=q)
        np.clip(q, -half, half - 1, out=q)
        product_, square = np.einsum(_DOT, w, q), np.einsum(_DOT, q, q)
        q *= scales
        q -= w
        return np.stack([product_, square, np.einsum(_DOT, q, q)])

    return blocks.totals(sums)


def _asymmetric_sums(centred: Blocks, top: int, scales: Stored, mins: Stored, mean: F64, kind: str) -> F64:
    """``Σc, Σwc, Σc², Σ(w - scale·c - min)²`` of centred weights, codes from scales and mins as stored: ``(4, M)``."""
    scale, low = to_f32(scales, kind), (to_f32(mins, kind) - mean).astype(np.float32)

    def sums(w: F32, c: F32) -> F32:
        np.subtract(w, low, out=c)
        c /= divisor(scale)
        totals = _code_sums(w, c, top)
        c *= scale
        c += low
        c -= w
        return np.concatenate([totals, np.einsum(_DOT, c, c)[None]])

    return centred.totals(sums)


def _code_sums(w: F32, c: F32, top: int) -> F32:
    """Round ``c`` to codes in place; ``Σc, Σwc, Σc²``."""
    np.rint(c, out=c)
    np.clip(c, 0, top, out=c)
    return np.stack([c.sum(axis=0), np.einsum(_DOT, w, c), np.einsum(_DOT, c, c)])


def _peaks(blocks: Blocks) -> F64:
    return np.maximum(-blocks.least(), blocks.greatest())


def _finite(values: F64) -> F64:
    return np.where(np.isfinite(values), values, 0)
