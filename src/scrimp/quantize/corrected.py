"""Weights that make up for what the quantized prefix does to their inputs, before they are rounded themselves."""

from __future__ import annotations

import numpy as np

from scrimp import _core
from scrimp.calibrate.statistics import Statistics
from scrimp.engine import default_threads, pick_isa
from scrimp.formats.code import F64
from scrimp.tensors import F32

#: How much of each correction is applied: of the layer's own inputs, and of the residual stream it writes to.
DRIFT, BEHIND = 0.5, 0.5
#: Added to the diagonal of H, as a share of its mean.
RIDGE = 0.01
#: Inputs that are solved for at a time.
_AT_ONCE = 64
#: Rows that are corrected at a time.
ROWS_AT_ONCE = 512


def corrected(
    weight: F32, statistics: Statistics, *, drift: float = DRIFT, behind: float = BEHIND, ridge: float = RIDGE
) -> F32:
    """Weights ``W'`` whose outputs come nearer to those of the original network, from the inputs there are::

        W' = W + (α W C + β R) (H + λ·mean(diag H)·I)⁻¹      H = X̂ᵀX̂   C = (X - X̂)ᵀ X̂   R = (S - Ŝ)ᵀ X̂

    X (T, K) are the original's inputs, X̂ those that the quantized prefix makes; S and Ŝ (T, N) the residual stream that
    the outputs are added to, where they are. With α = 1, λ = 0 and no R it is the W' of least ``‖X̂ W'ᵀ - X Wᵀ‖``, with
    β = 1 that of least ``‖(Ŝ + X̂ W'ᵀ) - (S + X Wᵀ)‖``; and of any Ŵ such an error is
    ``tr((Ŵ - W') H (Ŵ - W')ᵀ)`` and a constant, so what rounds W' under H corrects for the prefix.

    Shapes
        weight (N, K), statistics of K inputs with their drift; without one the weight itself
    Edge cases
        The weight itself where H + λI has no Cholesky factor: no input was ever active.
    Source
        Li et al. 2025, arXiv:2504.02692 (GPTAQ), whose sequential form this is in one step; the residual part is ours
    """
    if statistics.drift is None:
        return weight
    moments = statistics.moments
    lower = moments.copy()
    np.fill_diagonal(lower, moments.diagonal() + ridge * float(moments.diagonal().mean()))
    if not _core.cholesky(lower, default_threads(), pick_isa()) or not np.isfinite(lower.diagonal()).all():
        return weight
    found = np.empty(weight.shape, np.float32)
    for begin in range(0, len(weight), ROWS_AT_ONCE):  # a head in float64 would be the largest thing there is
        rows = slice(begin, begin + ROWS_AT_ONCE)
        wide = weight[rows].astype(np.float64)
        missing = drift * (wide @ statistics.drift)
        if statistics.behind is not None:
            missing += behind * statistics.behind[rows]
        found[rows] = wide + solved(missing, lower)
    return found


def solved(right: F64, lower: F64) -> F64:
    """``right (N, K) (L Lᵀ)⁻¹`` of a lower triangle ``L (K, K)``, in panels of inputs."""
    found = right.copy()
    panels = [slice(at, at + _AT_ONCE) for at in range(0, len(lower), _AT_ONCE)]
    for at in panels:  # found Lᵀ = right
        found[:, at] -= found[:, : at.start] @ lower[at, : at.start].T
        found[:, at] = np.linalg.solve(lower[at, at], found[:, at].T).T
    for at in reversed(panels):  # found L = what that gave
        found[:, at] -= found[:, at.stop :] @ lower[at.stop :, at]
        found[:, at] = np.linalg.solve(lower[at, at].T, found[:, at].T).T
    return found
