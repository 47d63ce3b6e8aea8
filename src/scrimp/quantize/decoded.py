"""Stored matrices as float32 again, with all threads; and how far they are from what they were made of."""

from __future__ import annotations

import math

import numpy as np

from scrimp.engine.float_path import row_pieces, row_reader
from scrimp.quantize.pool import pool
from scrimp.tensors import F32, QTensor


def decode(stored: QTensor) -> F32:
    """The weights ``(N, K)``: what ``stored.dequantize()`` returns, sooner."""
    out, read = np.empty(stored.shape, np.float32), row_reader(stored)

    def fill(rows: slice) -> None:
        out[rows] = read(rows.start, rows.stop)

    list(pool().map(fill, row_pieces(stored)))
    return out


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
