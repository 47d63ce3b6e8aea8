"""A low-rank side-car that makes up for what rounding lost, where the layer's inputs would show it."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format, parse
from scrimp.formats.code import F64
from scrimp.quantize.decoded import decode
from scrimp.quantize.objective import moments_of, row_errors
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32, QTensor, encode_weight

#: What A and B are stored in.
STORED = parse("int8:g64")
#: Times that the rounding is repeated for what the side-car leaves to it.
ROUNDS = 2


def needs(shape: tuple[int, int], rank: int) -> dict[str, SideCar]:
    """A (R, K) and B (N, R); never more than a matrix has ranks."""
    rank = min(rank, *shape)
    return {"lowrank_a": SideCar((rank, shape[1]), STORED), "lowrank_b": SideCar((shape[0], rank), STORED)}


def quantize(first: Quantize, weight: F32, format: Format, statistics: Statistics | None, rank: int) -> Quantized:
    """``W ≈ Ŵ + B A`` of least output error, in turns::

        Ŵ ← first(W - B A)
        B A ← the best of rank R for D = W - Ŵ in tr((D - BA) H (D - BA)ᵀ), A refitted to B as stored

    and the best of all turns is kept, the one without a side-car included.

    Shapes
        weight (N, K), statistics of K inputs
    Error
        Never above that of ``first`` alone: a side-car of zeros is what is left where nothing better was found.
    Source
        Zhang et al. 2024, LQER, arXiv:2402.02446, section 3; Liu et al. 2024, EoRA, arXiv:2410.21271; the turns are
        those of Guo et al. 2023, LQ-LoRA, arXiv:2311.12023
    """
    moments = moments_of(statistics, weight, "lowrank")
    rank = needs((weight.shape[0], weight.shape[1]), rank)["lowrank_a"].shape[0]
    made = first(weight, format, statistics)
    stored = decode(made.tensor)
    a, b = (np.zeros(side, np.float32) for side in ((rank, weight.shape[1]), (weight.shape[0], rank)))
    best = (_error(weight - stored, moments), made, encode_weight(a, STORED), encode_weight(b, STORED), stored)
    for turn in range(ROUNDS + 1):
        right, left = factors(weight - stored, moments, rank)
        product = decode(left) @ decode(right)
        error = _error(weight - stored - product, moments)
        if error < best[0]:
            best = error, made, right, left, stored + product
        if turn < ROUNDS:
            made = first(weight - product, format, statistics)
            stored = decode(made.tensor)
    _, made, right, left, effective = best
    return Quantized(made.tensor, made.notes, {"lowrank_a": right, "lowrank_b": left}, effective)


def factors(residual: F32, moments: F64, rank: int) -> tuple[QTensor, QTensor]:
    """A and B as stored: B spans the strongest ``rank`` left singular vectors of ``D H^½``, A is D seen in them."""
    wide = residual.astype(np.float64)
    left = encode_weight(strongest(wide, moments, rank).astype(np.float32), STORED)
    basis = decode(left).astype(np.float64)
    right = np.linalg.lstsq(basis, wide, rcond=None)[0]
    return encode_weight(right.astype(np.float32), STORED), left


def strongest(residual: F64, moments: F64, rank: int) -> F64:
    """Orthonormal ``U (N, R)`` for which ``U Uᵀ D`` is of all matrices of rank R the nearest to D under H."""
    rows, cols = residual.shape
    if rows <= cols:
        gram = residual @ moments @ residual.T
        return np.ascontiguousarray(np.linalg.eigh((gram + gram.T) / 2)[1][:, : -rank - 1 : -1])
    values, vectors = np.linalg.eigh(moments)
    root = residual @ (vectors * np.sqrt(np.maximum(values, 0)))
    directions = np.linalg.eigh(root.T @ root)[1][:, : -rank - 1 : -1]
    return np.asarray(np.linalg.qr(root @ directions)[0])


def _error(difference: F32, moments: F64) -> float:
    return float(row_errors(difference, moments).sum())
