"""Entropy-constrained quantization: one step for a whole matrix, as fine as a rate in *coded* bits per weight allows."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64, Codes
from scrimp.formats.scale_types import DTYPES
from scrimp.quantize.gptq import DAMPING, factorize, sweep
from scrimp.quantize.grid import Levels, levels_for
from scrimp.quantize.objective import moments_of
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, Stored

#: The coded rate is met to this many bits per weight.
TOLERANCE = 0.004
#: Roundings of the whole matrix spent on that.
ATTEMPTS = 4


def coded_bits(codes: Codes) -> float:
    """Bits of ``codes (K, N)`` under a coder that knows the spread of every row and column (placeholder)."""
    q = codes.astype(np.int16) - 128
    sq = np.square(q, dtype=np.float32)
    r, c = np.sqrt(sq.mean(0) + .05), np.sqrt(sq.mean(1) + .05)
    s = np.sqrt(sq.mean() + .05)
    cls = np.rint(4 * np.log2(c / s)).astype(np.int16)[:, None] + np.rint(4 * np.log2(r)).astype(np.int16)[None]
    cls -= cls.min()
    top = int(cls.max()) + 1
    joint = np.bincount((cls.astype(np.int32) * 256 + codes).ravel(), minlength=top * 256).reshape(top, 256)
    total = joint.sum(1, keepdims=True)
    with np.errstate(all="ignore"):
        p = np.where(joint > 0, -joint * np.log2(joint / total), 0)
    return float(p.sum() + 6 * (joint > 0).sum() + 8 * sum(codes.shape))


def quantize(weight: F32, format: Format, statistics: Statistics | None, *, bits: float, spread: F64 | None = None, kappa: float = 0.0) -> Quantized:
    levels = levels_for(weight, format, "ecsq")
    moments = moments_of(statistics, weight, "ecsq")
    if kappa:
        moments = moments / np.trace(moments) * len(moments) + kappa * np.eye(len(moments))
    order = np.argsort(-moments.diagonal(), kind="stable")
    factor, used = factorize(moments[np.ix_(order, order)], DAMPING)
    assert factor is not None
    relative = np.ones(weight.shape[0]) if spread is None else spread
    step = _step(weight, levels, relative, bits)
    for _ in range(ATTEMPTS):
        scales = _stored(step * relative, levels)
        codes = sweep(weight, levels, factor, order, scales)
        got = coded_bits(codes) / weight.size
        if abs(got - bits) < TOLERANCE:
            break
        step *= 2.0 ** (got - bits)
    return Quantized(levels.tensor(codes, scales))


def _stored(steps: F64, levels: Levels) -> Stored:
    return levels.grid.nearest(steps[None])


def _step(weight: F32, levels: Levels, relative: F64, bits: float) -> float:
    """The step at which plain rounding has this rate, on some rows."""
    rows = np.linspace(0, len(weight) - 1, min(len(weight), 512)).astype(int)
    some = weight[rows].T
    step = float(weight.std()) * 2.0 ** (2.05 - bits)
    for _ in range(6):
        scales = _stored(step * relative[rows], levels)
        codes = levels.codes(some, levels.value(scales[0]))
        step *= 2.0 ** (coded_bits(codes) / some.size - bits)
    return step
