"""Perplexity: how surprised a model is by a text."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from scrimp.measure.error_bars import windowed_error
from scrimp.measure.scores import Scores
from scrimp.measure.windows import Windows


@dataclass(frozen=True)
class Perplexity:
    """Negative log-likelihood per token in nats, and what follows from it.

    ``broken``: the model predicts worse than word counts do (or not at all: NaN), so its perplexity is no percentage of
    anything.
    """

    tokens: int  #: scored
    nll: float
    nll_se: float  #: from window means; NaN when there is one window
    unigram_nll: float

    @property
    def ppl(self) -> float:
        return exp(self.nll) if self.nll < 700 else float("inf")

    @property
    def ppl_se(self) -> float:
        """First order: ``ppl · nll_se``."""
        return self.ppl * self.nll_se

    @property
    def broken(self) -> bool:
        return not self.nll <= self.unigram_nll

    def to_json(self) -> dict[str, float | int | bool]:
        return {
            "tokens": self.tokens, "nll": self.nll, "nll_se": self.nll_se, "ppl": self.ppl, "ppl_se": self.ppl_se,
            "unigram_nll": self.unigram_nll, "broken": self.broken,
        }  # fmt: skip


def perplexity(scores: Scores, windows: Windows, vocab_size: int) -> Perplexity:
    return Perplexity(
        tokens=scores.nll.size,
        nll=float(scores.nll.mean()),
        nll_se=windowed_error(scores.nll),
        unigram_nll=unigram_nll(windows.targets, vocab_size),
    )


def unigram_nll(targets: NDArray[np.int32], vocab_size: int) -> float:
    """The nll of a model that only knows how often each token occurs in ``targets`` themselves, add-one smoothed:
    ``p(w) = (count(w) + 1) / (n + V)``. A network that does no better knows nothing about language.

    >>> round(unigram_nll(np.array([0, 0, 1], np.int32), 2), 4)    # p = 3/5, 3/5, 2/5
    0.646
    """
    _, counts = np.unique(targets, return_counts=True)
    return log(targets.size + vocab_size) - float((counts * np.log(counts + 1.0)).sum()) / targets.size
