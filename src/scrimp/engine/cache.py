"""How keys and values are cached: the formats, and the bytes they take."""

from __future__ import annotations

from typing import Literal

from scrimp import _core
from scrimp.errors import UsageError, nearest
from scrimp.program import Program

#: What a cached number is. ``f32`` goes with the reference arithmetic.
Kv = Literal["f16", "f32", "int8", "int4"]

#: The number of each in core/kernels/kernels.h, where the layouts are drawn.
KV_NUMBERS: dict[Kv, int] = {"f16": 0, "f32": 1, "int8": 2, "int4": 3}
#: Those of the command line.
OFFERED: tuple[Kv, ...] = ("f16", "int8", "int4")
#: Numbers of one head and position that share a float16 scale, as a power of two.
BLOCK_LOG2 = 5


def check_kv(name: str) -> Kv:
    """The format that ``name`` spells; UsageError when there is none."""
    for kv in KV_NUMBERS:
        if name == kv:
            return kv
    known = [str(kv) for kv in KV_NUMBERS]
    hint = nearest(name, known) or f"there are {', '.join(known)}"
    raise UsageError(f"'{name[:40]}' is no format of the key/value cache.", hint=hint)


def row_bytes(kv: Kv, head_dim: int) -> int:
    """Bytes of the keys (or the values) of one head and position, scales included.

    >>> row_bytes("f16", 64), row_bytes("int8", 64), row_bytes("int4", 64)
    (128, 68, 36)
    """
    if kv in ("f16", "f32"):
        return head_dim * (2 if kv == "f16" else 4)
    scales: int = 2 * -(-head_dim // (1 << BLOCK_LOG2))
    codes = head_dim if kv == "int8" else 16 * -(-head_dim // 32)
    return scales + codes


def page_bytes(program: Program, kv: Kv) -> int:
    """Bytes of a page: so many positions of all layers, every part of it on a line of 64 bytes."""
    caches = [(cache.kv_heads, cache.head_dim) for cache in program.caches]
    return _core.page_bytes(caches, KV_NUMBERS[kv], BLOCK_LOG2)


def bytes_per_position(program: Program, kv: Kv) -> int:
    """Bytes that every token of context takes in the caches of all layers."""
    return sum(2 * cache.kv_heads * row_bytes(kv, cache.head_dim) for cache in program.caches)
