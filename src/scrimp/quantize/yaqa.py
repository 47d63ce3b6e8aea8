"""YAQA: GPTQ whose outputs make up for each other's errors too, as the loss of the whole network weighs them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.quantize import gptq
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32

#: How far the Fisher factor is drawn to its diagonal, which is sampled best. Tried by a prototype on SmolLM2-135M,
#: int3:g64, 32 windows of text and 48 of gradients: gptq KL 0.375; with 0 0.385, 0.3 **0.322**, 0.5 0.330, and 0.338
#: with a third of the mean added to the diagonal instead.
SHRINK = 0.3
#: Windows that gradients are taken of, spread evenly over those that calibrate.
WINDOWS = 48
#: Outputs a matrix may have: G is their square.
MAX_ROWS = 8192


def quantize(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """Choose codes so that the *network's* output errs least, as far as this matrix is concerned::

        KL ≈ tr(G E H Eᵀ) / 2     E = W - Ŵ (N, K)     H = Σ x xᵀ     G = mean g gᵀ
        G + … = S Sᵀ, H + … = R Rᵀ (gptq.py)            the objective: Σ_nk S_nn² R_kk² (what this rounds off)²
        ŵ_nk = nearest(w_nk + Σ_{j<k} e_nj R_jk / R_kk + Σ_{m<n} S_mn / S_nn (e_mk + Σ_{j<k} e_mj R_jk / R_kk))

    G is drawn to its diagonal, of which GPTQ's row by row knows as much as it needs: a diagonal G gives its codes.
    Inputs and rows go by descending diagonal.

    Shapes
        weight (N, K), statistics of K inputs with the Fisher factor G of N outputs
    Edge cases
        Without G (the head, or a matrix of too many outputs to hold it) it is GPTQ, and the notes say so.
    Source
        Tseng, Sun and De Sa 2025, arXiv:2505.22988: its rounding with both factors, and its sketch A in one round;
        Martens and Grosse 2015, arXiv:1503.05671, section 3 (K-FAC). Drawing G to its diagonal is ours.
    """
    if statistics is None or statistics.fisher is None:
        found = gptq.quantize(weight, format, statistics)
        return replace(
            found, notes=(*found.notes, "no gradients at a head, or at so many outputs: rounded as gptq does")
        )
    return gptq.quantize(weight, format, statistics, fisher=shrunk(statistics.fisher, len(weight)))


def shrunk(fisher: F32, rows: int) -> F64:
    """G as it is used; Refused where it is of another layer or holds NaN."""
    if fisher.shape != (rows, rows):
        raise Refused(f"the gradients are of {fisher.shape[0]:,} outputs and the matrix has {rows:,}.",
                      hint="they were measured at another layer")  # fmt: skip
    if not np.isfinite(fisher).all():
        raise Refused("the gradients hold NaN or infinity.", hint="calibrate on other text, or use gptq")
    wide = (1 - SHRINK) * fisher.astype(np.float64)
    np.fill_diagonal(wide, fisher.diagonal())
    return wide
