"""Texts as vectors: the hidden states of an encoder pooled into one, of length 1. Source: Reimers & Gurevych 2019,
arXiv:1908.10084, and the sentence-transformers library, whose files say how a checkpoint pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from scrimp.model import Model

F32 = NDArray[np.float32]


def embed(model: Model, texts: Sequence[str]) -> F32:
    """Unit vectors ``(n, d)`` of texts. A text of more tokens than the model reads is cut (:func:`cut_texts` counts).

    Edge cases
        an empty text is its special tokens; no texts give ``(0, d)``
    """
    if not model.encodes:
        raise Refused(f"{model.source.path} is no encoder: it continues texts and has no vectors of them.",
                      hint="a bert such as all-MiniLM-L6-v2 makes embeddings")  # fmt: skip
    room = _room(model)
    found = np.empty((len(texts), model.program.widths[model.program.output]), np.float32)
    for at, text in enumerate(texts):
        ids = encode(model.tokenizer, text, room)
        found[at] = pool(model.engine.forward(ids, 0, all_logits=True), model.parsed.pooling)
    return found


def encode(tokenizer: Tokenizer, text: str, room: int) -> list[int]:
    """Token ids with the special tokens of the tokenizer around them, ``room`` at most: the last ones before the end
    are left out."""
    if not isinstance(text, str):
        raise UsageError(f"{type(text).__name__} is no text.", hint="embed takes a string or a list of them")
    ids = tokenizer.encode_whole(text)
    around = len(tokenizer.encode_whole(""))
    if around >= room:
        raise Refused(f"{room} tokens leave no room for a text.", hint="open the model with a larger context")
    return ids if len(ids) <= room else [*ids[: room - 1], ids[-1]] if around else ids[:room]


def cut_texts(model: Model, texts: Sequence[str]) -> int:
    """How many texts are longer than what the model reads of them."""
    room = _room(model)
    return sum(len(model.tokenizer.encode_whole(text)) > room for text in texts)


def pool(states: F32, pooling: str) -> F32:
    """Hidden states ``(T, d)`` → a vector ``(d,)`` of length 1 (zeros stay): their mean, or the first."""
    vector = states[0] if pooling == "first" else states.mean(axis=0, dtype=np.float64)
    length = float(np.sqrt(np.square(vector, dtype=np.float64).sum()))
    return np.asarray(vector / max(length, 1e-12), np.float32)


def _room(model: Model) -> int:
    return min(int(model.parsed.max_tokens), model.context)
