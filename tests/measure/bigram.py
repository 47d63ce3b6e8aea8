"""Networks whose every logit can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Bigram:
    """Predicts from the last token alone, out of a table ``(V, V)`` of logits; remembers what it was asked to run."""

    threads, isa = 1, "scalar"

    def __init__(self, table: F32, context: int = 64, tokenizer: Words | None = None) -> None:
        self.table, self.context = np.asarray(table, np.float32), context
        self.tokenizer = tokenizer or Words()
        self.vocab_size = self.table.shape[1]
        self.calls: list[tuple[list[int], int]] = []

    def logits(self, tokens: Sequence[int], start: int = 0) -> F32:
        self.calls.append((list(tokens), start))
        return np.ascontiguousarray(self.table[list(tokens)])

    def step(self, tokens: Sequence[int], start: int) -> F32:
        return self.logits(tokens, start)[-1]

    def close(self) -> None: ...


class Words:
    """A token per word, numbered as they first appear in the vocabulary given."""

    add_bos, bos_id = False, None

    def __init__(self, vocabulary: str = "") -> None:
        self.ids = {word: i for i, word in enumerate(vocabulary.split())}

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        return [self.ids[word] for word in text.split()]


def random_table(seed: int, size: int) -> F32:
    return np.random.default_rng(seed).normal(0, 2, (size, size)).astype(np.float32)


def log_softmax(logits: NDArray[np.generic]) -> NDArray[np.float64]:
    """In float64, with NumPy only."""
    exact = np.asarray(logits, np.float64)
    exact = exact - exact.max(axis=-1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))
