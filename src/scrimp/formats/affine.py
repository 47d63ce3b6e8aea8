"""Integers with a min beside the scale: ``value = scale * code + min``."""

from __future__ import annotations

from itertools import product

import numpy as np

from scrimp.formats.code import Codes, Rounding, code_type
from scrimp.formats.format import Format
from scrimp.formats.rounding import Uniform, to_integers
from scrimp.formats.scale_types import F32, Stored, at_least, at_most, divisor, to_f32, to_nearest

#: How much of the way from the middle to each end of the block the codes span, for the rule "mse".
_SHARES = (1.0, 0.92, 0.84, 0.75, 0.66, 0.55)


def choose_affine(
    blocks: F32, format: Format, rule: str, rounding: Rounding, rng: Uniform
) -> tuple[Codes, Stored, Stored]:
    """Codes ``(R, g, G)``, scales and mins ``(R, g)``.

    absmax: ``min w`` rounded down and ``(max w - min) / (2^b - 1)`` rounded up, so that nothing is clipped.
    mse: of all pairs of ends drawn in towards the middle the one that errs least.
    """
    kind, top = format.scale, 2**format.element.bits - 1
    assert kind is not None
    low, high = blocks.min(axis=-1).astype(np.float64), blocks.max(axis=-1).astype(np.float64)
    mins = at_most(low, kind)
    with np.errstate(over="ignore"):
        scales = at_least((high - to_f32(mins, kind)) / top, kind)
    if rule == "mse":
        middle = (low + high) / 2
        least = _error(blocks, scales, mins, kind, top)
        for below, above in product(_SHARES, repeat=2):
            start, end = middle + (low - middle) * below, middle + (high - middle) * above
            trial_mins = to_nearest(start, kind)
            trial = to_nearest((end - start) / top, kind)
            error = _error(blocks, trial, trial_mins, kind, top)
            better = error < least
            scales, mins = np.where(better, trial, scales), np.where(better, trial_mins, mins)
            least = np.where(better, error, least)
    uniform = rng.random(blocks.shape) if rng is not None else None
    steps = np.clip(to_integers(_steps(blocks, scales, mins, kind), rounding, uniform), 0, top)
    return steps.astype(code_type(format.element.bits)), scales, mins


def _steps(blocks: F32, scales: Stored, mins: Stored, kind: str) -> F32:
    with np.errstate(over="ignore"):
        return (blocks - to_f32(mins, kind)[..., None]) / divisor(to_f32(scales, kind))[..., None]


def _error(blocks: F32, scales: Stored, mins: Stored, kind: str, top: int) -> F32:
    codes = np.clip(np.rint(_steps(blocks, scales, mins, kind)), 0, top)
    off = to_f32(scales, kind)[..., None] * codes + to_f32(mins, kind)[..., None] - blocks
    return np.asarray(np.einsum("rgk,rgk->rg", off, off), np.float32)
