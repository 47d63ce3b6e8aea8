"""The search that rewrites share: of several vectors to scale a group by, the one whose rounded matrices err least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.quantize.decoded import stands_for
from scrimp.quantize.fold import Group, Scaling, divided_statistics, shared
from scrimp.quantize.quantized import Quantize
from scrimp.tensors import F32

#: Rows of each matrix, evenly spread, that all candidates are tried on.
ROWS = 32
#: An input that is used less than this share of the mean is scaled as if it were used so much.
LEAST_SHARE = 1e-4

#: ``(W diag(s), rounded, times diag(1/s) (R, K); W (R, K); s (K,); format) → error of the output``
Loss = Callable[[F32, F32, F32, Format], float]


def best(
    group: Group,
    weights: Mapping[str, F32],
    statistics: Statistics,
    formats: Mapping[str, Format],
    rounds: Mapping[str, Quantize],
    candidates: Sequence[F32],
    loss: Loss,
) -> Scaling:
    """The candidate ``s (K,)`` of least loss over all matrices ``W (N, K)`` of the group, each rounded by its method.

    All are tried on some rows, and the best of them on all rows against no scaling at all: what is returned errs less
    than none, or is None with a note.
    """

    def total(matrices: Mapping[str, F32], s: F32) -> float:
        seen, error = divided_statistics(statistics, s), 0.0
        for name, weight in matrices.items():
            made = rounds[name](weight * s, formats[name], seen)
            error += loss(stands_for(made) / s, weight, s, formats[name])
        return error

    some = {name: weight[:: max(1, len(weight) // ROWS)] for name, weight in weights.items()}
    found = min((shared(group, _centred(s)) for s in candidates), key=lambda s: total(some, s))
    if total(weights, found) < total(weights, np.ones(group.width, np.float32)):
        return Scaling(found)
    return Scaling(None, ("of all ways to scale its inputs none errs less than no scaling",))


def powers(used: F32, exponent: float, weight: F32 | None = None, weight_exponent: float = 0.0) -> F32:
    """``used^exponent / weight^weight_exponent``, where both are bounded below; ones where nothing is used."""
    s = _bounded(used) ** exponent
    return (s if weight is None else s / _bounded(weight) ** weight_exponent).astype(np.float32)


def _bounded(values: F32) -> F32:
    mean = float(values.mean(dtype=np.float64))
    return np.maximum(values / mean, LEAST_SHARE).astype(np.float32) if mean > 0 else np.ones_like(values)


def _centred(s: F32) -> F32:
    """Divided by the geometric mean of its ends: then neither the scales of weights nor the inputs drift."""
    middle = float(np.sqrt(float(s.max()) * float(s.min())))
    return (s / middle).astype(np.float32)
