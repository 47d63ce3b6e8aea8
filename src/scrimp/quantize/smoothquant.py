"""SmoothQuant: inputs with outliers are divided, their weights multiplied, so that both fit into eight bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.engine.engine import ACTIVATION_BLOCK
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.quantize.fold import Group, Scaling
from scrimp.quantize.quantized import Quantize
from scrimp.quantize.scaling import best, powers
from scrimp.tensors import F32

#: α of the search. Published choices lie between 0.5 and 0.85, by network.
ALPHAS = tuple(step / 10 for step in range(1, 10))


def search(
    group: Group,
    weights: Mapping[str, F32],
    statistics: Statistics,
    formats: Mapping[str, Format],
    rounds: Mapping[str, Quantize],
    *,
    block: int = ACTIVATION_BLOCK,
) -> Scaling:
    """The s of least output error when inputs are int8 and the matrices rounded by the methods that follow::

        s_k = max|x_k|^α / max|w_k|^(1-α)        α = 0.1 … 0.9, and none at all; divided by sqrt(max s · min s)

    The error is ``‖X Wᵀ - int8(X / s) Ŵᵀ‖²`` on the sample of inputs that the Statistics hold. As in the engine, an
    int8 scale serves ``block`` inputs of one token; formats that it decodes to float32 meet inputs as they are.

    Shapes
        weights (N, K) by name; statistics with a sample (rows, K), else UsageError
    Error
        Never more than that of no scaling, on the sample.
    Source
        Xiao et al. 2022, arXiv:2211.10438, section 4, with α searched for each group
    """
    sample = statistics.sample
    if sample is None:
        raise UsageError("smoothquant needs a sample of what the layer reads.", hint="calibrate first, or use awq")
    heaviest = np.max([np.abs(weight).max(axis=0) for weight in weights.values()], axis=0)
    candidates = [powers(statistics.peak, alpha, heaviest, 1 - alpha) for alpha in ALPHAS]

    def loss(rounded: F32, weight: F32, s: F32, format: Format) -> float:
        seen = in_int8(sample / s, block) * s if format.runs else sample
        return float(np.square(seen @ rounded.T - sample @ weight.T).sum(dtype=np.float64))

    return best(group, weights, statistics, formats, rounds, candidates, loss)


def in_int8(x: F32, block: int) -> F32:
    """``x (T, K)`` as int8 with a scale ``max|x| / 127`` for each ``block`` inputs of a row, decoded again."""
    rows, cols = x.shape
    blocks = np.pad(x, ((0, 0), (0, -cols % block))).reshape(rows, -1, block)
    scales = np.abs(blocks).max(axis=2, keepdims=True) / np.float32(127)
    decoded = np.rint(blocks / np.where(scales > 0, scales, np.float32(1))) * scales
    return np.ascontiguousarray(decoded.reshape(rows, -1)[:, :cols], np.float32)
