"""QuIP: rounding where weights and inputs are spread evenly, since both sides of a matrix were rotated before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.models.hadamard import rotate
from scrimp.models.sidecars import Rotation
from scrimp.quantize.decoded import stands_for
from scrimp.quantize.objective import moments_of
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32

#: One for all matrices, so that those that read the same inputs share their rotation.
SEED = 1
#: Rows of the moments that are rotated at a time.
_ROWS_AT_ONCE = 256


def needs(shape: tuple[int, int], rotation: Rotation) -> dict[str, SideCar]:
    """The rotation's numbers; UsageError where the matrix cannot be cut into its stretches."""
    if shape[0] % rotation.outputs or shape[1] % rotation.inputs:
        raise UsageError(
            f"A matrix of {shape[0]:,} × {shape[1]:,} is not cut evenly into {rotation.outputs} and {rotation.inputs}.",
            hint="write quip, and stretches are found",
        )
    return {"rotation": SideCar((3,))}


def quantize(
    first: Quantize, weight: F32, format: Format, statistics: Statistics | None, rotation: Rotation
) -> Quantized:
    """``Ŵ' ≈ R_o W R_iᵀ`` by ``first`` under the rotated moments ``R_i H R_iᵀ``; the layer is ``R_oᵀ Ŵ' R_i x``.

    Shapes
        weight (N, K); R_i (K, K) and R_o (N, N) as models/hadamard.py has them, block-diagonal where they are stretches
    Edge cases
        Means are rotated; of magnitudes and maxima only the moments tell afterwards: they become those of a Gaussian of
        the same second moments, and three standard deviations.
    Source
        Chee et al. 2023, arXiv:2307.13304, section 4 (incoherence); Tseng et al. 2024, arXiv:2402.04396 (Hadamard)
    """
    needs((weight.shape[0], weight.shape[1]), rotation)
    turned = turn(weight, rotation)
    made = first(turned, format, None if statistics is None else turned_statistics(statistics, weight, rotation))
    effective = turn(stands_for(made), rotation, inverse=True)
    beside = {"rotation": np.array(rotation.values, np.float32)}
    return replace(made, beside=beside, effective=effective)


def turn(weight: F32, rotation: Rotation, *, inverse: bool = False) -> F32:
    """``R_o W R_iᵀ``, or ``R_oᵀ W R_i``."""
    right = rotate(weight, rotation.seed, stretches=rotation.inputs, inverse=inverse)
    both = rotate(np.ascontiguousarray(right.T), rotation.seed, stretches=rotation.outputs, inverse=inverse)
    return np.ascontiguousarray(both.T, np.float32)


def turned_statistics(statistics: Statistics, weight: F32, rotation: Rotation) -> Statistics:
    """Of ``R_i x``."""
    moments = _turned_moments(moments_of(statistics, weight, "quip"), rotation)
    spread = np.sqrt(np.maximum(moments.diagonal(), 0) / max(1, statistics.count))
    mean = rotate(statistics.mean, rotation.seed, stretches=rotation.inputs).astype(np.float32)
    magnitude = (np.sqrt(2 / np.pi) * spread).astype(np.float32)
    sample = statistics.sample
    if sample is not None:
        sample = rotate(sample, rotation.seed, stretches=rotation.inputs).astype(np.float32)
    peak = (3 * spread).astype(np.float32)
    return replace(statistics, moments=moments, mean=mean, magnitude=magnitude, peak=peak, sample=sample)


def _turned_moments(moments: F64, rotation: Rotation) -> F64:
    """``R_i H R_iᵀ``, symmetric to the last bit; some rows at a time, since of wide layers H is the largest thing."""
    turned = np.empty_like(moments)
    pieces = [slice(at, at + _ROWS_AT_ONCE) for at in range(0, len(moments), _ROWS_AT_ONCE)]
    for at in pieces:
        turned[at] = rotate(moments[at], rotation.seed, stretches=rotation.inputs)
    for at in pieces:
        columns = rotate(np.ascontiguousarray(turned[:, at].T), rotation.seed, stretches=rotation.inputs)
        turned[:, at] = columns.T
    for at in pieces:
        below = slice(at.start, None)
        middle = (turned[at, below] + turned[below, at].T) / 2
        turned[at, below], turned[below, at] = middle, middle.T
    return turned
