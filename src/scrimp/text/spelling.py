"""How a tokenizer spells bytes inside its token strings, and back.

===============  ==========  =========================================================================================
byte-level       ``Ġcafé``   each byte is one printable character (GPT-2's alphabet); a space is ``Ġ``
sentencepiece    ``▁café``   text as it is, a space is ``▁``; ``<0xE9>`` is one byte
word             ``##fé``    a word is preceded by a space, unless it begins with the mark of a continuation
===============  ==========  =========================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scrimp.errors import Refused

SPACE = "▁"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Spelling:
    """``to_bytes`` turns a token string into what it stands for. With ``leading_space`` the text of a whole sequence
    begins with a space that was not written by the user, and that decoding takes away again."""

    to_bytes: Callable[[str], bytes]
    leading_space: bool


def byte_alphabet() -> dict[str, int]:
    """GPT-2's alphabet, character to byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up.

    >>> byte_alphabet()["Ġ"], byte_alphabet()["a"], len(byte_alphabet())
    (32, 97, 256)
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


_ALPHABET = byte_alphabet()


def byte_level(token: str) -> bytes:
    """
    >>> byte_level("ĠcafÃ©").decode()
    ' café'
    """
    try:
        return bytes([_ALPHABET[character] for character in token])
    except KeyError:  # not in the alphabet: a token that was added as plain text
        return token.encode()


def sentencepiece(token: str) -> bytes:
    """
    >>> sentencepiece("▁café").decode(), sentencepiece("<0x0A>")
    (' café', b'\\n')
    """
    if match := BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(SPACE, " ").encode()


def word(continuation: str) -> Callable[[str], bytes]:
    """
    >>> word("##")("play"), word("##")("##ing")
    (b' play', b'ing')
    """

    def to_bytes(token: str) -> bytes:
        if continuation and token.startswith(continuation):
            return token[len(continuation) :].encode()
        return b" " + token.encode()

    return to_bytes


def spelling_of(decoder: Mapping[str, object] | None) -> Spelling:
    """Reads the spelling off the ``decoder`` entry of a ``tokenizer.json``."""
    steps = _flatten(decoder)
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return Spelling(byte_level, leading_space=False)
    for step in steps:
        if step.get("type") == "Metaspace":
            return Spelling(sentencepiece, leading_space=step.get("prepend_scheme") != "never")
        if step.get("type") == "WordPiece":
            return Spelling(word(str(step.get("prefix", "##"))), leading_space=True)
    if kinds <= {"Replace", "ByteFallback", "Fuse", "Strip"} and "Replace" in kinds:
        return Spelling(sentencepiece, leading_space="Strip" in kinds)
    if not kinds:
        return Spelling(word(""), leading_space=True)
    raise Refused(
        f"The tokenizer decodes with {', '.join(sorted(map(str, kinds)))}, which scrimp does not know.",
        hint="byte-level, SentencePiece and WordPiece tokenizers are read",
    )


def _flatten(decoder: Mapping[str, object] | None) -> list[Mapping[str, object]]:
    if decoder is None:
        return []
    if decoder.get("type") != "Sequence":
        return [decoder]
    parts = decoder.get("decoders")
    return [step for part in parts for step in _flatten(part)] if isinstance(parts, list) else []
