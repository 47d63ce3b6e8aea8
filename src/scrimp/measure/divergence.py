"""Divergence: how far a model's predictions moved away from those of the model it was made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from scrimp.measure.error_bars import windowed_error
from scrimp.measure.scores import Scores


@dataclass(frozen=True)
class Divergence:
    """KL(reference ‖ model) in nats over the scored tokens; ``same_top`` is a fraction.

    ``nll_change`` is nll − nll_reference; its error is that of the paired difference, far smaller than the
    errors of the two, since both stumble over the same tokens.
    """

    kl_mean: float
    kl_se: float
    kl_median: float
    kl_p99: float
    same_top: float
    same_top_se: float
    nll_reference: float
    nll_change: float
    nll_change_se: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def divergence(scores: Scores) -> Divergence:
    """Standard errors come from window means, as :func:`scrimp.measure.error_bars.windowed_error` explains."""
    assert scores.kl is not None
    assert scores.same_top is not None
    assert scores.nll_reference is not None
    same = scores.same_top.astype(np.float64)
    change = scores.nll - scores.nll_reference
    return Divergence(
        kl_mean=float(scores.kl.mean()),
        kl_se=windowed_error(scores.kl),
        kl_median=float(np.median(scores.kl)),
        kl_p99=float(np.quantile(scores.kl, 0.99)),
        same_top=float(same.mean()),
        same_top_se=windowed_error(same),
        nll_reference=float(scores.nll_reference.mean()),
        nll_change=float(change.mean()),
        nll_change_se=windowed_error(change),
    )
