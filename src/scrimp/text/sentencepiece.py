"""SentencePiece BPE, where each piece has a score and the best-scored neighbours merge first, as ranked merges.

A pair merges as soon as its result is the best piece that any two neighbours would give. So every way to split a
piece into two pieces is a merge, and its rank is the rank of the piece's score. (Of equal scores SentencePiece takes
the leftmost pair, ranked merges the lower id; trained models have no equal scores.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from scrimp.text.malformed import check_distinct, malformed
from scrimp.text.spelling import BYTE_TOKEN, SPACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MAX_PIECE_CHARACTERS = 1024  # splitting a piece everywhere costs the square of its length


class TokenType(IntEnum):
    """What a token is, numbered as in SentencePiece and GGUF files."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Pieces:
    """Token ``i`` is ``texts[i]`` with a score (higher merges first) and a TokenType."""

    texts: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]


def build(pieces: Pieces, *, space_prefix: bool) -> Backend:
    """``space_prefix``: text is encoded as if a space stood before it, so that first words look like all others."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, normalizers
    from tokenizers.models import BPE

    _check(pieces)
    unknown = next((t for t, kind in zip(pieces.texts, pieces.types, strict=True) if kind == TokenType.UNKNOWN), None)
    vocabulary = {text: i for i, text in enumerate(pieces.texts)}
    merges = merges_by_score(pieces, vocabulary)
    backend = Backend(BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", SPACE)]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), *spaces] if space_prefix else spaces)
    strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if space_prefix else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    return backend


def merges_by_score(pieces: Pieces, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of every normal piece into two normal pieces, best score first."""
    normal = {t for t, kind in zip(pieces.texts, pieces.types, strict=True) if kind == TokenType.NORMAL}
    ranked = [
        (-pieces.scores[vocabulary[text]], vocabulary[text], vocabulary[text[:cut]], vocabulary[text[cut:]])
        for text in normal
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    ranked.sort()
    return [(pieces.texts[left], pieces.texts[right]) for _, _, left, right in ranked]


def _check(pieces: Pieces) -> None:
    check_distinct(pieces.texts)
    for i, (text, score, kind) in enumerate(zip(pieces.texts, pieces.scores, pieces.types, strict=True)):
        if not math.isfinite(score):
            raise malformed(f"token {i:,} has the score {score}")
        if len(text) > MAX_PIECE_CHARACTERS:
            raise malformed(f"token {i:,} has {len(text):,} characters, more than {MAX_PIECE_CHARACTERS:,}")
        if kind == TokenType.BYTE and not BYTE_TOKEN.fullmatch(text):
            raise malformed(f"token {i:,} should be a byte like <0x0A>, but is {text[:20]!r}")
    every_byte = sum(kind == TokenType.BYTE for kind in pieces.types) == 256
    if TokenType.UNKNOWN not in pieces.types and not every_byte:
        raise malformed("it has neither a token for every byte nor an unknown token, so some characters would vanish")
