"""A GGUF file byte by byte, so that a test can make any one of them wrong. Test data only."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, content: object) -> bytes:
    """One value without its type; ``content`` of an array is (item type, list)."""
    if kind == STRING:
        assert isinstance(content, str | bytes)
        return string(content)
    if kind == ARRAY:
        assert isinstance(content, tuple)
        item, items = content
        return struct.pack("<IQ", item, len(items)) + b"".join(value(item, one) for one in items)
    return struct.pack("<" + CODES[kind], content)


def key(name: str | bytes, kind: int, content: object) -> bytes:
    return string(name) + struct.pack("<I", kind) + value(kind, content)


def tensor(name: str | bytes, sides: Sequence[int], kind: int, offset: int, rank: int | None = None) -> bytes:
    """``sides`` in GGUF's order, the fastest first."""
    counted = len(sides) if rank is None else rank
    return string(name) + struct.pack(f"<I{len(sides)}QIQ", counted, *sides, kind, offset)


#: Two tensors: "a" is 2 rows of 32 in Q8_0 (68 bytes), "b" 4 floats (16 bytes) at the next multiple of 32.
KEYS = (key("general.architecture", STRING, "llama"), key("n", U32, 7))
TENSORS = (tensor("a", (32, 2), 8, 0), tensor("b", (4,), 0, 96))
DATA = bytes(68).ljust(96, b"\0") + bytes(16)


def gguf(
    keys: Sequence[bytes] = KEYS,
    tensors: Sequence[bytes] = TENSORS,
    data: bytes = DATA,
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """``counts`` are the numbers of tensors and keys that the header claims."""
    claimed = (len(tensors), len(keys)) if counts is None else counts
    header = magic + struct.pack("<IQQ", version, *claimed) + b"".join(keys) + b"".join(tensors)
    return header.ljust(-(-len(header) // alignment) * alignment, b"\0") + data
