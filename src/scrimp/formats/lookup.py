"""The reference encoder of code.py, fast: the code of a float32 is looked up by its upper bits.

Where all thresholds are bfloat16 numbers (fp8, fp6, fp4, 8-bit integers and posits), the upper 16 bits of a number, and
whether any lower bit is set, decide its code: a table of 131,072 codes. Elsewhere the upper 16 bits name a bucket with
at most one threshold in it, and one comparison decides; posits of 16 bits take 20 bits. What fits none is searched for.
Equality with the reference is tested at every threshold, its float32 neighbours, and on random bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import Code, Codes, Rounding

F32 = NDArray[np.float32]
_CHUNK = 1 << 15
#: Bits below the bucket of a 16-bit code: 20 bits of 31 name one of 2^20.
_FINE = 11


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


class _Fine:
    """As _Compared, for 16-bit two's complement codes: by the upper 20 bits of the magnitude, negated where x is."""

    def __init__(self, lower: Codes, first: NDArray[np.uint32]) -> None:
        self.lower, self.first = lower, first

    def __call__(self, x: F32, out: Codes) -> None:
        bits = x.view(np.uint32) & 0x7FFFFFFF
        bucket = bits >> _FINE
        self.lower.take(bucket, out=out, mode="clip")
        out += bits >= self.first.take(bucket, mode="clip")
        np.negative(out, out=out, where=np.signbit(x))


class _Searched:
    """The reference itself."""

    def __init__(self, code: Code, rounding: Rounding) -> None:
        self.code, self.rounding = code, rounding

    def __call__(self, x: F32, out: Codes) -> None:
        out[:] = self.code.encode(x, self.rounding)


_Method = _Buckets | _Compared | _Fine | _Searched


def _method(code: Code, rounding: Rounding) -> _Method:
    found: _Method | None = code.cache.get(rounding)
    if found is None:
        found = _bucket_table(code, rounding) or _fine(code, rounding) or _compared(code, rounding)
        found = found or _Searched(code, rounding)
        code.cache[rounding] = found
    return found


def _edges(code: Code, rounding: Rounding) -> NDArray[np.float64]:
    """Every number at which the code changes, except zero."""
    inner = code.levels if rounding == "zero" else code.thresholds
    top = [code.next_level if rounding == "zero" else (code.largest + code.next_level) / 2]
    found = np.append(inner, top if code.beyond is not None else [])
    found = np.concatenate([found, -found]) if code.mirror != "none" else found
    kept: NDArray[np.float64] = found[(found != 0) & np.isfinite(found)]
    return kept


def _bucket_table(code: Code, rounding: Rounding) -> _Buckets | None:
    edges = _edges(code, rounding)
    single = edges.astype(np.float32)
    if (single != edges).any() or (single.view(np.uint32) & 0xFFFF).any():
        return None
    index = np.arange(1 << 17, dtype=np.uint32)
    numbers = (index >> 1 << 16 | index & 1).view(np.float32)
    return _Buckets(_safe(code, numbers, rounding))


def _compared(code: Code, rounding: Rounding) -> _Compared | None:
    """Where no bucket holds more than one threshold."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    start, end = bits.view(np.float32), (bits | 0xFFFF).view(np.float32)
    near = np.unique(_edges(code, rounding)).astype(np.float32)
    if len(np.unique(near.view(np.uint32) >> 16)) < len(near):
        return None
    lower = _safe(code, np.minimum(start, end), rounding)  # of NaN, where an end is NaN
    upper = _safe(code, np.where(np.isinf(start), start, np.maximum(start, end)), rounding)
    first = np.where(
        np.isinf(start), start, np.float32(np.inf)
    )  # infinity shares its bucket with NaNs, which compare false
    huge, by_zero = np.float32(np.inf), np.array([0, -0.0, 2**-149, -(2**-149)], np.float32)
    candidates: list[F32] = [np.nextafter(near, -huge), near, np.nextafter(near, huge), by_zero]
    for candidate in candidates:
        bucket = candidate.view(np.uint32) >> 16
        changes = (_safe(code, candidate, rounding) == upper[bucket]) & (lower[bucket] != upper[bucket])
        np.minimum.at(first, bucket[changes], candidate[changes])
    return _Compared(lower, upper, first)


def _fine(code: Code, rounding: Rounding) -> _Fine | None:
    if code.bits != 16 or code.mirror != "complement" or code.infinite is None or code.infinite != code.nan:
        return None
    edges = np.abs(_edges(code, rounding)).astype(np.float32).view(np.uint32)
    edges = np.unique(edges)
    bucket = edges >> _FINE
    if len(np.unique(bucket)) < len(bucket):
        return None
    lower = code.encode((np.arange(1 << 20, dtype=np.uint32) << _FINE).view(np.float32), rounding)
    first = np.full(1 << 20, 0xFFFFFFFF, np.uint32)
    for candidate in (edges + 1, edges, edges - 1, np.array([1], np.uint32)):
        at = candidate >> _FINE
        up = code.encode(candidate.view(np.float32), rounding) != lower[at]
        first[at[up]] = candidate[up]
    return _Fine(lower, first)


def _safe(code: Code, numbers: F32, rounding: Rounding) -> Codes:
    """The reference, with any code for NaN where none means it: such input never gets here."""
    if code.nan is None:
        numbers = np.where(np.isnan(numbers), np.float32(0), numbers)
    return code.encode(numbers, rounding)
