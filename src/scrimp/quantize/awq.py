"""AWQ: inputs that are strong get finer weights, by scaling them up before all are rounded with one scale a group."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.quantize.fold import Group, Scaling
from scrimp.quantize.objective import moments_of
from scrimp.quantize.quantized import Quantize
from scrimp.quantize.scaling import best, powers
from scrimp.tensors import F32

#: r of the search: by activations alone, and with the weights.
EXPONENTS = tuple(step / 20 for step in range(1, 20))
EXPONENTS_WITH_WEIGHTS = tuple(step / 10 for step in range(10))


def search(
    group: Group,
    weights: Mapping[str, F32],
    statistics: Statistics,
    formats: Mapping[str, Format],
    rounds: Mapping[str, Quantize],
) -> Scaling:
    """The s of least output error when the group's matrices are rounded by the methods that follow::

        s = x^r, r = 0.05, 0.1 … 0.95,  or  x^r / w^(1-r), r = 0, 0.1 … 0.9; divided by sqrt(max s · min s)
        x_k = mean |x_k| over tokens      w_k = mean over rows of |w_nk| / mean |w_n|

    and none at all, which counts as a candidate. The error is ``Σ tr((W - Ŵ) H (W - Ŵ)ᵀ)`` over the matrices, in the
    original's inputs. One difference to the paper: H stands for the block's output, so that nothing has to be run.

    Shapes
        weights (N, K) by name; statistics of K inputs
    Error
        Never more than that of no scaling. What is best for one method is not for another: on layer 0 of SmolLM2-135M
        the s that ``rtn`` wants gives ``gptq`` five times the error at o_proj.
    Edge cases
        Inputs that are never active count as if they were a ten-thousandth as strong as the mean.
    Source
        Lin et al. 2023, arXiv:2306.00978, section 3.2; the second family of s from its authors' code
    """
    moments = moments_of(statistics, next(iter(weights.values())), "awq")
    used, held = statistics.magnitude, _held(weights)
    candidates = [powers(used, r) for r in EXPONENTS]
    candidates += [powers(used, r, held, 1 - r) for r in EXPONENTS_WITH_WEIGHTS]

    def loss(rounded: F32, weight: F32, s: F32, format: Format) -> float:
        apart = (rounded - weight).astype(np.float64)
        return float(np.einsum("nk,nk->", apart @ moments, apart))

    return best(group, weights, statistics, formats, rounds, candidates, loss)


def _held(weights: Mapping[str, F32]) -> F32:
    """How much of the weights lies in each input, rows counting alike whatever their size: ``(K,)``."""
    total = np.zeros(next(iter(weights.values())).shape[1], np.float64)
    for weight in weights.values():
        magnitude = np.abs(weight)
        rows = magnitude.mean(axis=1, keepdims=True)
        total += (magnitude / np.where(rows > 0, rows, 1)).sum(axis=0, dtype=np.float64)
    return (total / sum(map(len, weights.values()))).astype(np.float32)
