"""Levels that were learned are parameters too: the best ones for given codes and scales, by least squares under H."""

from __future__ import annotations

import numpy as np

from scrimp.formats.code import F64
from scrimp.quantize.blocks import row_chunks
from scrimp.quantize.grid import levels_of, parts_of
from scrimp.quantize.objective import row_errors
from scrimp.quantize.pool import pool
from scrimp.tensors import F32, QTensor

#: Pull towards the levels there are, as a share of the mean diagonal of the normal equations.
RIDGE = 1e-6


def refit(tensor: QTensor, weight: F32, moments: F64) -> QTensor:
    """The levels of least ``tr((W - Ŵ) H (W - Ŵ)ᵀ)`` for the codes and scales of ``tensor``::

        ŵ = t B      B of a row: a row per level, the scales of the weights that have its code, zero elsewhere
        t (Σ B H Bᵀ + ridge) = Σ w H Bᵀ + ridge·(t as it is)      summed over all rows, which share their levels

    Ascending again, with the codes renumbered. The *whole* tensor errs no more than before, or stays as it was; single
    rows may err more.

    Shapes
        weight (N, K), moments (K, K); a tensor whose format learns its levels
    Edge cases
        A level that no weight has stays where it is.
    Source
        Ours; the levels' counterpart of refit.py. Han et al. 2016, arXiv:1510.00149, section 3.3 trains shared weights
        by their summed gradients, of which this is the fixed point
    """
    levels, (rows, cols) = levels_of(tensor, "refit"), tensor.shape
    parts = parts_of(tensor, levels)
    assert levels.codebook is not None
    count = len(levels.codebook)
    scale = levels.value(parts.scales)[np.arange(cols) // levels.format.group(cols)]
    h, w = moments.astype(np.float32), np.ascontiguousarray(weight.T, np.float32)

    def equations(at: slice) -> tuple[F64, F64]:
        codes, by = parts.codes[:, at], np.broadcast_to(scale, w.shape)[:, at]
        flat = codes.ravel()
        right = np.bincount(flat, weights=((h @ w[:, at]) * by).ravel(), minlength=count)
        seen = [((h @ (by * (codes == code))) * by).ravel() for code in range(count)]
        return np.stack([np.bincount(flat, weights=one, minlength=count) for one in seen]), np.asarray(
            right, np.float64
        )

    found = list(pool().map(equations, row_chunks(rows, cols)))
    normal, right = np.sum([n for n, _ in found], axis=0), np.sum([r for _, r in found], axis=0)
    diagonal = normal.diagonal()
    ridge = RIDGE * diagonal.mean() or 1.0
    solution = np.linalg.solve((normal + normal.T) / 2 + ridge * np.eye(count), right + ridge * levels.codebook)
    solution = np.where((diagonal > 0) & np.isfinite(solution), solution, levels.codebook)
    order = np.argsort(solution, kind="stable")
    renumbered = np.argsort(order, kind="stable").astype(parts.codes.dtype)[parts.codes]
    other = levels.learned(solution[order].astype(np.float32)).tensor(renumbered, parts.scales)
    before, after = (row_errors(weight - q.dequantize().astype(np.float64), moments).sum() for q in (tensor, other))
    return other if after < before else tensor
