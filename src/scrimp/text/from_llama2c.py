"""Tokenizers of llama2.c: ``tok*.bin``, SentencePiece pieces with scores.

```
int32 length of the longest piece | vocab_size × ( float32 score | int32 length | bytes, UTF-8, a space is a space )
```
Ids 0, 1, 2 are unknown, BOS, EOS; then 256 byte tokens. Source: karpathy/llama2.c, tokenizer.py (export).
"""

from __future__ import annotations

import struct
from pathlib import Path

from scrimp.text.malformed import malformed, refusing
from scrimp.text.sentencepiece import MAX_PIECE_CHARACTERS, Pieces, TokenType, build
from scrimp.text.spelling import BYTE_TOKEN, SPACE
from scrimp.text.tokenizer import Tokenizer

UNKNOWN, BOS, EOS = "<unk>", "<s>", "</s>"


def load(path: Path, vocab_size: int) -> Tokenizer:
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    pieces = read_pieces(path.read_bytes(), vocab_size)
    with refusing():
        backend = build(pieces, space_prefix=True)
        backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (UNKNOWN, BOS, EOS)])
        backend.post_processor = TemplateProcessing(
            single=[BOS, "$A"], pair=[BOS, "$A", "$B"], special_tokens=[(BOS, 1)]
        )
    special = {"unk_token": UNKNOWN, "bos_token": BOS, "eos_token": EOS}
    # the networks were trained on stories that each begin with BOS, so BOS also ends one
    return Tokenizer(backend, special=special, add_bos=True, end_ids=[1])


def read_pieces(data: bytes, vocab_size: int) -> Pieces:
    """Refuses data that is not exactly ``vocab_size`` pieces."""
    texts, scores, types = [UNKNOWN, BOS, EOS], [], [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    offset = 4
    for i in range(vocab_size):
        if offset + 8 > len(data):
            raise malformed(f"the file ends in token {i:,} of the {vocab_size:,} the network has")
        score, length = struct.unpack_from("<fi", data, offset)
        offset += 8
        if not 0 <= length <= 4 * MAX_PIECE_CHARACTERS:
            raise malformed(f"token {i:,} says it is {length:,} bytes long")
        if offset + length > len(data):
            raise malformed(f"the file ends in token {i:,} of the {vocab_size:,} the network has")
        scores.append(score)
        if i >= 3:
            texts.append(_text(data[offset : offset + length], i))
            types.append(TokenType.BYTE if BYTE_TOKEN.fullmatch(texts[-1]) else TokenType.NORMAL)
        offset += length
    if offset != len(data):
        raise malformed(f"{len(data) - offset:,} bytes follow the {vocab_size:,} tokens the network has")
    return Pieces(texts, scores, types)


def _text(raw: bytes, i: int) -> str:
    try:
        return raw.decode().replace(" ", SPACE)
    except UnicodeDecodeError:
        raise malformed(f"token {i:,} is not UTF-8") from None
