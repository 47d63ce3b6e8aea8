"""The original's own text: what it writes when nobody asks, for recovery where no text like its own is at hand.

Source: Liu et al. 2023, "LLM-QAT", arXiv:2305.17888, section 3.1: a random first token, the next few the likeliest,
the rest drawn from the whole distribution.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.model import Model
from scrimp.sources.source import Source

#: Texts that are written side by side: a step reads all weights once for all of them.
BATCH = 32
#: Tokens after the first that are the likeliest ones.
GREEDY = 4


def write(
    original: Source,
    windows: int,
    length: int,
    *,
    bos: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
    tick: Callable[[int], None] = lambda tokens: None,
) -> NDArray[np.int32]:
    """``(windows, length)`` token ids, written with int8 activations as users run it; the same seed, the same text.

    ``bos`` stands first where the tokenizer puts one. ``tick`` is told how many tokens were written. After ``seconds``
    no more is begun: then there are fewer windows, some at least.
    """
    model = Model(original, context=length, sequences=min(BATCH, windows))
    random, began = np.random.default_rng(seed), time.monotonic()
    parts = [np.zeros((0, length), np.int32)]
    for begin in range(0, windows, BATCH):
        if begin and seconds is not None and time.monotonic() - began >= seconds:
            break
        parts.append(_batch(model, min(BATCH, windows - begin), length, bos, random, tick))
    return np.concatenate(parts)


def recalled(path: Path, shape: tuple[int, int], rows: int) -> NDArray[np.int32] | None:
    """What :func:`remember` kept: ids below ``rows``, at most as many windows as this shape has, or None where the file
    is anything else."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.int32 or found.ndim != 2:
        return None
    if not 1 <= len(found) <= shape[0] or found.shape[1] != shape[1]:
        return None
    return found if found.min() >= 0 and found.max() < rows else None


def remember(path: Path, written: NDArray[np.int32]) -> None:
    """Keep a text for the next recovery, and for this one begun anew; where there is no room, it is written again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, written)
        os.replace(file.name, path)


def _batch(
    model: Model,
    count: int,
    length: int,
    bos: int | None,
    random: np.random.Generator,
    tick: Callable[[int], None],
) -> NDArray[np.int32]:
    text = np.zeros((count, length), np.int32)
    begin = 0 if bos is None else 1
    text[:, :begin] = bos or 0
    text[:, begin] = random.integers(model.vocab_size, size=count)
    sequences = [model.sequence() for _ in range(count)]
    for at in range(begin + 1, length):
        known = 0 if at == begin + 1 else at - 1  # a token behind BOS is run with it
        rows = model.extend([(one, row[known:at].tolist()) for one, row in zip(sequences, text, strict=True)])
        pick = np.argmax if at - begin <= GREEDY else lambda logits: _drawn(logits, random)
        text[:, at] = [pick(logits[0]) for logits in rows]
        tick(count)
    for one in sequences:
        one.drop()
    return text


def _drawn(logits: NDArray[np.float32], random: np.random.Generator) -> int:
    """A token by its probability."""
    below = np.cumsum(np.exp(logits - logits.max()), dtype=np.float64)
    return min(int(np.searchsorted(below, random.random() * below[-1], side="right")), len(logits) - 1)
