"""K-means: a codebook learned where errors cost most, rounded to with feedback, and solved for again."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.quantize import codebook, gptq, rtn
from scrimp.quantize.grid import codebook_of, learns, levels_for, levels_of
from scrimp.quantize.importance import pivots
from scrimp.quantize.objective import moments_of, row_errors
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, QTensor

#: Times that levels are solved for and all weights are rounded to them again.
ROUNDS = 2


def quantize(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """Levels, scales and codes of small ``tr((W - Ŵ) H (W - Ŵ)ᵀ)`` for formats that learn their levels:

    1. Lloyd's iteration on the weights over their block's largest, from evenly spaced levels; input k counts R_kk²,
       what an error costs when later inputs make up for it (gptq.py).
    2. GPTQ onto these levels, and onto those of ``rtn``: scales, then codes under the whole of H; the better goes on.
    3. The levels of least error for these codes (codebook.py), and GPTQ again, ``ROUNDS`` times while that helps.

    Shapes
        weight (N, K), statistics of K inputs
    Error
        Never more than after ``gptq``, nor than after ``rtn``, whose tensor is kept where nothing better is found; a
        note says so.
    Edge cases
        Formats with levels of their own, such as the embedding's beside a body of kmeans3, are left to GPTQ, and a note
        says so.
    Source
        Han et al. 2016, arXiv:1510.00149, section 3 (linear start: section 3.2); under H ours
    """
    if not learns(format):
        found = gptq.quantize(weight, format, statistics)
        return Quantized(found.tensor, (*found.notes, f"{format.name} has levels of its own: gptq chose its codes"))
    moments = moments_of(statistics, weight, "kmeans")
    blind = levels_for(weight, format, "kmeans")
    seen = blind.learned(codebook_of(weight, format, pivots(moments), linear=True))
    made = gptq.quantize(weight, format, statistics, levels=seen)

    def error(tensor: QTensor) -> float:
        return float(row_errors(weight - tensor.dequantize().astype(np.float64), moments).sum())

    starts = (made.tensor, gptq.quantize(weight, format, statistics, levels=blind).tensor)
    best = codebook.refit(min(starts, key=error), weight, moments)
    least = error(best)
    for _ in range(ROUNDS):
        again = gptq.quantize(weight, format, statistics, levels=levels_of(best, "kmeans")).tensor
        again = codebook.refit(again, weight, moments)
        if (now := error(again)) >= least:
            break
        best, least = again, now
    plain = rtn.quantize(weight, format)
    if least > error(plain):
        return Quantized(plain, (*made.notes, "nothing better than rtn was found, so it is rounded to nearest"))
    return Quantized(best, made.notes)
