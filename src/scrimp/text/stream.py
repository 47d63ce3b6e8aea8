"""Decoding one token at a time: complete characters only, nothing twice."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrimp.text.tokenizer import Tokenizer


class TextStream:
    """All texts pushed plus the flushed rest are exactly ``tokenizer.decode`` of all ids; a push costs the length
    of its own token. ``continues``: text stands before these tokens, so a leading space belongs to the text."""

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._strip = tokenizer.spelling.leading_space and not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Text that this token completes; empty while a character is unfinished, and for special tokens."""
        if token_id in self._tokenizer.special_ids:
            return ""
        data = self._tokenizer.token_bytes(token_id)
        if self._strip and data:
            data = data.removeprefix(b" ")
            self._strip = False
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that was never finished."""
        return self._utf8.decode(b"", final=True)
