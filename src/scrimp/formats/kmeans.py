"""Codebooks learned from a tensor: Lloyd's iteration in one dimension, on a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.scale_types import F32

_SAMPLE = 1 << 18
_STEPS = 60


def sample(w: F32, group: int, *, whole: bool, importance: F32 | None = None) -> tuple[F32, F32]:
    """Weights over their block's largest magnitude, and how much an error of each counts: that magnitude squared, times
    the ``importance (K,)`` of its input.

    Rows evenly spaced through the tensor; blocks of zeros, and those with NaN or infinity, are left out.
    """
    costs = np.ones(w.shape[1], np.float32) if importance is None else importance
    if whole:
        finite = np.isfinite(w)
        flat, counted = w[finite], np.broadcast_to(costs, w.shape)[finite]
        peak = np.abs(flat).max(initial=0)
        step = max(1, flat.size // _SAMPLE)
        return (flat[::step] / peak, counted[::step]) if peak > 0 else (np.zeros(1, np.float32), np.ones(1, np.float32))
    rows = w[:: max(1, w.size // _SAMPLE)]
    tail = (0, 0), (0, -rows.shape[1] % group)
    blocks, counts = (
        np.pad(rows, tail).reshape(-1, group),
        np.pad(np.broadcast_to(costs, rows.shape), tail).reshape(-1, group),
    )
    peak = np.abs(blocks).max(axis=1, keepdims=True)
    keep = np.isfinite(peak[:, 0]) & (peak[:, 0] > 0)
    if not keep.any():
        return np.zeros(1, np.float32), np.ones(1, np.float32)
    blocks, peak = blocks[keep], peak[keep]
    return (blocks / peak).ravel(), (counts[keep] * np.square(peak / peak.max())).ravel()


def learn(x: F32, weight: F32, bits: int, *, linear: bool = False) -> NDArray[np.float32]:
    """``2^bits`` levels, ascending, float32, of least weighted squared error ``Σ weight·(x - level)²``.

    Starts at quantiles, or ``linear`` from end to end, and iterates "every level is the mean of the numbers nearest to
    it"; prefix sums over the sorted sample make a step a few lookups. A level that loses all its numbers stays where it
    was.
    """
    order = np.argsort(x, kind="stable")
    x64, w64 = x[order].astype(np.float64), weight[order].astype(np.float64)
    mass, moment = (np.concatenate([[0.0], np.cumsum(part)]) for part in (w64, w64 * x64))
    count = 2**bits
    quantiles = x64[((np.arange(count) + 0.5) / count * x64.size).astype(int)]
    levels = np.linspace(x64[0], x64[-1], count) if linear else quantiles
    for _ in range(_STEPS):
        edges = np.concatenate([[0], np.searchsorted(x64, (levels[:-1] + levels[1:]) / 2), [x64.size]])
        inside = np.diff(mass[edges])
        levels = np.where(inside > 0, np.diff(moment[edges]) / np.where(inside > 0, inside, 1), levels)
    return np.sort(levels).astype(np.float32)
