"""Stored matrices as float32 again, with all threads; and how far they are from what they were made of."""

from __future__ import annotations

import math

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.engine.float_path import row_pieces, row_reader
from scrimp.formats.code import F64
from scrimp.quantize.pool import pool
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, QTensor

#: Columns of H at a time, where half of it will do.
_COLS_AT_ONCE = 192


def decode(stored: QTensor) -> F32:
    """The weights ``(N, K)``: what ``stored.dequantize()`` returns, sooner."""
    out, read = np.empty(stored.shape, np.float32), row_reader(stored)

    def fill(rows: slice) -> None:
        out[rows] = read(rows.start, rows.stop)

    list(pool().map(fill, row_pieces(stored)))
    return out


def stands_for(made: Quantized) -> F32:
    """The weights ``(N, K)`` that a tensor and its side-cars are together."""
    return decode(made.tensor) if made.effective is None else made.effective


def relative_error(weight: F32, stored: QTensor) -> float:
    """``‖w - ŵ‖ / ‖w‖`` (Frobenius); 0 for a matrix of zeros."""
    read = row_reader(stored)

    def squares(rows: slice) -> tuple[float, float]:
        exact, apart = weight[rows], read(rows.start, rows.stop)
        apart -= exact
        first, second = (np.einsum("nk,nk->n", x, x).sum(dtype=np.float64) for x in (apart, exact))
        return float(first), float(second)

    parts = list(pool().map(squares, row_pieces(stored)))
    error, norm = (math.fsum(part[i] for part in parts) for i in range(2))
    return math.sqrt(error / norm) if norm else 0.0


def output_error(weight: F32, stored: QTensor, statistics: Statistics) -> float:
    """``sqrt(tr((W - Ŵ) H (W - Ŵ)ᵀ) / tr(W H Wᵀ))``: ``‖X (W - Ŵ)ᵀ‖ / ‖X Wᵀ‖``; 0 where W gives nothing but zeros.

    In float64: a good method hides its error where H is small, and a float32 product would not see it there.
    """
    read, moments = row_reader(stored), statistics.moments
    error = norm = 0.0
    for rows in row_pieces(stored):
        exact = weight[rows].astype(np.float64)
        apart = exact - read(rows.start, rows.stop)
        error += _quadratic(apart, moments)
        norm += _quadratic(exact, moments)
    return math.sqrt(max(0.0, error) / norm) if norm > 0 else 0.0


def _quadratic(x: F64, moments: F64) -> float:
    """``tr(X H Xᵀ)``; H is symmetric, so what lies below its diagonal counts twice above it."""
    total = 0.0
    for begin in range(0, x.shape[1], _COLS_AT_ONCE):
        part = x[:, begin : begin + _COLS_AT_ONCE]
        at = slice(begin, begin + _COLS_AT_ONCE)
        total += 2 * float(np.einsum("nk,nk->", x[:, :begin] @ moments[:begin, at], part))
        total += float(np.einsum("nk,nk->", part @ moments[at, at], part))
    return total
