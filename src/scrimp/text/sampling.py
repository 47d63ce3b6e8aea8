"""Choosing the next token from logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import ScrimpError, UsageError

FIRST_LOOK = 256  # candidates sorted at first when top_p alone cuts: nearly always enough


def _check(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high or (above and value == low):
        limits = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise UsageError(f"{name} is {value}.", hint=f"{name} is a number {limits}")


@dataclass(frozen=True)
class Sampling:
    """How to choose. The defaults change nothing: plain sampling from the softmax.

    ``temperature`` 0 takes the best token (of equals the first); ``top_k`` 0 and ``top_p`` 1 and ``min_p`` 0 and
    ``repeat_penalty`` 1 mean off; ``seed`` None is a different text every time.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 100.0)
        _check("top_p", self.top_p, 0.0, 1.0, above=True)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("repeat_penalty", self.repeat_penalty, 0.0, 100.0, above=True)
        for name, value in (("top_k", self.top_k), ("seed", self.seed)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise UsageError(f"{name} is {value}.", hint=f"{name} is a whole number, 0 or more")

    def generator(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self.seed))


GREEDY = Sampling(temperature=0.0)


def sample(
    logits: NDArray[np.floating], history: Sequence[int], sampling: Sampling, rng: np.random.Generator | None
) -> int:
    """The next token id. ``history``: all tokens so far, whose repetition ``repeat_penalty`` makes less likely.

    Shapes: logits (V,). -inf forbids a token; NaN, +inf, or no token left is an error. Temperature 0 draws nothing and
    needs no ``rng``.
    """
    if sampling.temperature == 0.0:
        return int(np.argmax(penalized(logits, history, sampling.repeat_penalty)))
    assert rng is not None
    ids, probabilities = candidates(logits, history, sampling)
    cumulative = np.cumsum(probabilities)
    # a draw just below 1 may lie past a sum that rounding left just below 1
    return int(ids[min(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"), len(ids) - 1)])


def candidates(
    logits: NDArray[np.floating], history: Sequence[int], sampling: Sampling
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Token ids that may come next and their probabilities, which sum to 1; temperature must not be 0.

    In this order: repetition penalty; top-k; temperature; softmax; top-p (the fewest tokens that together reach it);
    min-p (at least that share of the best one's probability). The best token always stays.
    """
    scores = penalized(logits, history, sampling.repeat_penalty)
    ids = np.arange(len(scores))
    if 0 < sampling.top_k < len(scores):
        ids = np.argpartition(scores, -sampling.top_k)[-sampling.top_k :]
        scores = scores[ids]
    probabilities = _softmax(scores.astype(np.float64) / sampling.temperature)
    if sampling.top_p < 1.0:
        kept = _nucleus(probabilities, sampling.top_p)
        ids, probabilities = ids[kept], probabilities[kept]
    if sampling.min_p > 0.0:
        likely = probabilities >= sampling.min_p * probabilities.max()
        ids, probabilities = ids[likely], probabilities[likely]
    return ids, probabilities / probabilities.sum()


def penalized(logits: NDArray[np.floating], history: Sequence[int], penalty: float) -> NDArray[np.floating]:
    """Logits of tokens in ``history`` divided by ``penalty``, or multiplied where negative.

    Source: Keskar et al., CTRL, 2019, section 4.1, in the sign-aware form everyone uses.
    """
    best = logits.max(initial=-np.inf)
    if not np.isfinite(best):
        raise ScrimpError(
            f"The model's best logit is {best}: its arithmetic has broken down.",
            hint="scrimp eval measures how badly; try a wider format",
        )
    if penalty == 1.0 or not len(history):
        return logits
    seen = np.unique(np.asarray(history, dtype=np.int64))
    seen = seen[(seen >= 0) & (seen < len(logits))]
    scores = logits.astype(np.float64)
    scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)
    return scores


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def _nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.intp]:
    """Indices of the fewest most likely tokens whose probabilities reach ``top_p``, best first. Looks at a few
    candidates before it sorts them all: sorting 262,144 takes 20 ms, more than a small model's step."""
    look = FIRST_LOOK
    while True:
        if look < len(probabilities):
            best = np.argpartition(probabilities, -look)[-look:]
        else:
            best = np.arange(len(probabilities))
        best = best[np.argsort(-probabilities[best], kind="stable")]
        enough = int(np.searchsorted(np.cumsum(probabilities[best]), top_p, side="left")) + 1
        if enough <= len(best) or len(best) == len(probabilities):
            return best[:enough]
        look *= 8
