"""The error of a linear layer's output, which calibrated methods make small: ``tr((W - Ŵ) H (W - Ŵ)ᵀ)``."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused, UsageError
from scrimp.formats.code import F64
from scrimp.tensors import F32

#: Added to the diagonal of H, as a share of its mean.
DAMPING = 0.01


def row_errors(difference: F32 | F64, moments: F64) -> F64:
    """``d H dᵀ`` of every row ``d`` of ``W - Ŵ (N, K)``: ``(N,)``, summed in float64."""
    wide = difference.astype(np.float64)
    return np.asarray(np.einsum("nk,nk->n", wide @ moments, wide))


def moments_of(statistics: Statistics | None, weight: F32, method: str) -> F64:
    """``H (K, K)``, or UsageError without statistics; Refused where they are of another layer or hold NaN."""
    if statistics is None:
        raise UsageError(
            f"{method} needs statistics of what the layer reads.", hint="calibrate first, or use rtn or hqq"
        )
    moments, cols = statistics.moments, weight.shape[1]
    if moments.shape != (cols, cols):
        raise Refused(f"the statistics are of {moments.shape[0]:,} inputs and the matrix has {cols:,}.",
                      hint="they were measured at another layer")  # fmt: skip
    if not np.isfinite(moments).all():
        raise Refused("the statistics hold NaN or infinity.", hint="calibrate again, on other text")
    return moments


def damped(moments: F64) -> F64:
    """H with ``DAMPING`` of its mean diagonal added: few tokens then don't pull weights far from where they were."""
    found = moments.copy()
    np.fill_diagonal(found, moments.diagonal() + DAMPING * moments.diagonal().mean())
    return found
