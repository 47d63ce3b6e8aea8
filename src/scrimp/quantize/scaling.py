"""The search that rewrites share: of several vectors to scale a group by, the one whose rounded matrices err least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from scrimp.formats import Format
from scrimp.quantize import rtn
from scrimp.quantize.decoded import decode
from scrimp.quantize.fold import Group, Scaling, shared
from scrimp.tensors import F32

#: Rows of each matrix, evenly spread, that all candidates are tried on.
ROWS = 128
#: So many of the best are tried on all rows, beside none.
FINALISTS = 3
#: An input that is used less than this share of the mean is scaled as if it were used so much.
LEAST_SHARE = 1e-4

#: ``(W' diag(1/s) as it is rounded (R, K), W (R, K), s (K,), format) → error of the output``
Loss = Callable[[F32, F32, F32, Format], float]


def best(
    group: Group,
    weights: Mapping[str, F32],
    formats: Mapping[str, Format],
    candidates: Sequence[F32],
    loss: Loss,
) -> Scaling:
    """The candidate ``s (K,)`` of least loss over all matrices ``W (N, K)`` of the group, rounded to nearest.

    First all on some rows, then the best few on all rows against no scaling at all: what is returned errs less than
    none, or is None with a note.
    """
    some = {name: weight[:: max(1, len(weight) // ROWS)] for name, weight in weights.items()}
    vectors = [shared(group, _centred(s)) for s in candidates]
    ranked = sorted(vectors, key=lambda s: _total(some, formats, s, loss))
    chosen: F32 | None = None
    least = _total(weights, formats, np.ones(group.width, np.float32), loss)
    for s in ranked[:FINALISTS]:
        total = _total(weights, formats, s, loss)
        if total < least:
            chosen, least = s, total
    notes = () if chosen is not None else ("of all ways to scale its inputs none errs less than no scaling",)
    return Scaling(chosen, notes)


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


def _total(weights: Mapping[str, F32], formats: Mapping[str, Format], s: F32, loss: Loss) -> float:
    total = 0.0
    for name, weight in weights.items():
        rounded = decode(rtn.quantize(weight * s, formats[name])) / s
        total += loss(rounded, weight, s, formats[name])
    return total
