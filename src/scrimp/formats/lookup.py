"""The reference encoder of code.py, fast: the code of a float32 is looked up by its upper bits.

Where all thresholds are bfloat16 numbers (fp8, fp6, fp4, 8-bit integers and posits), the upper 16 bits of a number, and
whether any lower bit is set, decide its code: a table of 131,072 codes. Elsewhere the upper 16 bits name a bucket with at
most one threshold in it, and one comparison decides. What fits neither (16-bit tables) is searched for.
Equality with the reference is tested at every threshold, its float32 neighbours, and on random bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import Code, Codes, Rounding

F32 = NDArray[np.float32]
_CHUNK = 1 << 15


def encode(code: Code, x: F32, rounding: Rounding = "even") -> Codes:
    """``code.encode(x, rounding)`` for float32 arrays; stochastic rounding has no table and stays with the reference.

    Refused for NaN where no code means it.
    """
    x = np.ascontiguousarray(x, np.float32)
    if code.nan is None and np.isnan(x).any():
        code.encode(x, rounding)  # says so
    out = np.empty(x.shape, code.codes.dtype)
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    look_up = _method(code, rounding)
    for at in range(0, flat.size, _CHUNK):
        look_up(flat[at : at + _CHUNK], flat_out[at : at + _CHUNK])
    return out


class _Buckets:
    """The code of every (upper 16 bits, any lower bit set)."""

    def __init__(self, table: Codes) -> None:
        self.table = table

    def __call__(self, x: F32, out: Codes) -> None:
        bits = x.view(np.uint32)
        index = bits >> 15
        index |= (bits & 0x7FFF) != 0
        self.table.take(index, out=out, mode="clip")


class _Compared:
    """Two codes for every upper 16 bits, and the first number that gets the upper one."""

    def __init__(self, lower: Codes, upper: Codes, first: F32) -> None:
        self.lower, self.upper, self.first = lower, upper, first

    def __call__(self, x: F32, out: Codes) -> None:
        bucket = x.view(np.uint32) >> 16
        high = x >= self.first.take(bucket, mode="clip")
        self.lower.take(bucket, out=out, mode="clip")
        np.copyto(out, self.upper.take(bucket, mode="clip"), where=high)


class _Searched:
    """The reference itself."""

    def __init__(self, code: Code, rounding: Rounding) -> None:
        self.code, self.rounding = code, rounding

    def __call__(self, x: F32, out: Codes) -> None:
        out[:] = self.code.encode(x, self.rounding)


def _method(code: Code, rounding: Rounding) -> _Buckets | _Compared | _Searched:
    found: _Buckets | _Compared | _Searched | None = code.cache.get(rounding)
    if found is None:
        found = _bucket_table(code, rounding) or _compared(code, rounding) or _Searched(code, rounding)
        code.cache[rounding] = found
    return found


def _edges(code: Code, rounding: Rounding) -> NDArray[np.float64]:
    """Every number at which the code changes, except zero."""
    inner = code.levels if rounding == "zero" else code.thresholds
    top = [code.next_level if rounding == "zero" else (code.largest + code.next_level) / 2]
    found = np.append(inner, top if code.beyond is not None else [])
    found = np.concatenate([found, -found]) if code.mirror != "none" else found
    return found[(found != 0) & np.isfinite(found)]


def _bucket_table(code: Code, rounding: Rounding) -> _Buckets | None:
    edges = _edges(code, rounding)
    single = edges.astype(np.float32)
    if (single != edges).any() or (single.view(np.uint32) & 0xFFFF).any():
        return None
    index = np.arange(1 << 17, dtype=np.uint32)
    numbers = (index >> 1 << 16 | index & 1).view(np.float32)
    return _Buckets(_safe(code, numbers, rounding))


def _compared(code: Code, rounding: Rounding) -> _Compared | None:
    """One threshold per bucket at most: true when no bucket's ends are more than one level apart."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    start, end = bits.view(np.float32), (bits | 0xFFFF).view(np.float32)
    edges = np.unique(_edges(code, rounding))
    buckets = edges.astype(np.float32).view(np.uint32) >> 16
    # An edge that float32 rounds out of its bucket would be missed: none may lie that close to a bucket's start.
    if len(np.unique(buckets)) < len(buckets):
        return None
    low, high = np.minimum(start, end), np.maximum(start, end)  # NaN stays NaN
    lower, upper = _safe(code, low, rounding), _safe(code, high, rounding)
    first = np.full(1 << 16, np.inf, np.float32)
    near = edges.astype(np.float32)
    for candidate in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
        bucket = candidate.view(np.uint32) >> 16
        changes = (_safe(code, candidate, rounding) == upper[bucket]) & (lower[bucket] != upper[bucket])
        np.minimum.at(first, bucket[changes], candidate[changes])
    return _Compared(lower, upper, first)


def _safe(code: Code, numbers: F32, rounding: Rounding) -> Codes:
    """The reference, with any code for NaN where none means it: such input never gets here."""
    if code.nan is None:
        numbers = np.where(np.isnan(numbers), np.float32(0), numbers)
    return code.encode(numbers, rounding)
