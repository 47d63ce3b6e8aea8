"""Numbers to codes: the quickest exact way for each kind of element, and for floats that are stored as they are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrimp.formats import lookup
from scrimp.formats.code import F64, Code, Codes, Rounding, code_type
from scrimp.formats.element import Element
from scrimp.formats.scale_types import F32, Stored, from_f32

Uniform: TypeAlias = "np.random.Generator | None"  # in words: the name alone imports numpy.random, 10 ms
_CHUNK = 1 << 15


def to_codes(
    element: Element, x: F32, rounding: Rounding = "even", rng: Uniform = None, *, code: Code | None = None
) -> Codes:
    """The code of every number of ``x``, already divided by its scale; beyond the last level the element decides.

    ``code`` replaces the element's own table (a learned codebook). NaN belongs to tables that have a code for it only.
    """
    if element.kind == "table" or (element.kind == "binary" and rounding == "stochastic"):
        table = element.code() if code is None else code
        if rounding != "stochastic":
            return lookup.encode(table, x, rounding)
        assert rng is not None
        return table.encode(x, rounding, rng.random(x.shape))
    if element.kind == "binary":
        return (x >= 0).view(np.uint8)
    steps = to_integers(x, rounding, None if rng is None or rounding != "stochastic" else rng.random(x.shape))
    np.clip(steps, -element.zero, element.levels - 1 - element.zero, out=steps)
    steps += element.zero
    return steps.astype(code_type(element.bits))


def to_integers(x: F32, rounding: Rounding, uniform: F64 | None = None) -> F32:
    """Whole numbers, still float32. Ties of ``away`` are found by the exact fraction, not by adding a half."""
    if rounding == "even":
        return np.rint(x)
    if rounding == "zero":
        return np.trunc(x)
    if rounding == "away":
        whole = np.trunc(x)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), np.float32(0))
    assert uniform is not None
    whole = np.floor(x)
    with np.errstate(invalid="ignore"):
        return whole + (x - whole + uniform >= 1).astype(np.float32)


def to_numbers(element: Element, codes: Codes) -> F32:
    """What codes mean before the scale, as float32."""
    if element.kind == "table":
        return element.tabulated().take(codes)
    return element.step * codes.astype(np.float32) - np.float32(element.zero)


def exact_f32(numbers: NDArray[np.generic]) -> F32:
    """float32 that rounds on to any shorter type as the numbers themselves would.

    float64 is rounded *to odd*: what float32 cannot hold gets an odd last bit, so that no tie is made up on the way.
    Source: Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums", theorem 1.
    """
    if numbers.dtype == np.float32:
        return np.asarray(numbers, np.float32)
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
    if numbers.dtype.itemsize <= 2 and numbers.dtype.kind == "f":
        return single
    wide = numbers.astype(np.float64)
    inexact = (single != wide) & np.isfinite(wide)
    if inexact.any():
        away = inexact & (np.abs(single.astype(np.float64)) > np.abs(wide))
        bits = single.view(np.uint32)
        bits = (bits - away) | inexact
        single = bits.astype(np.uint32).view(np.float32)
    return single


def store_floats(x: F32, kind: str, rounding: Rounding = "even", rng: Uniform = None) -> Stored:
    """float32 → f32, tf32 (as float32), f16 or bf16 (as uint16); too large becomes infinity."""
    if kind == "f32":
        return x
    if kind == "f16" or (kind == "bf16" and rounding == "even"):
        return from_f32(x, kind) if rounding == "even" else _halves(x, rounding, rng)
    drop = 16 if kind == "bf16" else 13
    bits = _cut(np.ascontiguousarray(x).view(np.uint32), drop, rounding, rng)
    return (bits >> 16).astype(np.uint16) if kind == "bf16" else bits.view(np.float32)


def _cut(bits: NDArray[np.uint32], drop: int, rounding: Rounding, rng: Uniform) -> NDArray[np.uint32]:
    """Round the ``drop`` low bits away: float32 bits grow with the magnitude, so adding to them rounds it."""
    half, mask = 1 << (drop - 1), np.uint32((1 << drop) - 1)
    add: NDArray[np.uint32]
    if rounding == "stochastic":
        assert rng is not None
        add = rng.integers(0, 1 << drop, bits.shape, dtype=np.uint32)
    elif rounding == "even":
        add = np.uint32(half - 1) + ((bits >> np.uint32(drop)) & np.uint32(1))
    else:
        add = np.full(bits.shape, half if rounding == "away" else 0, np.uint32)
    special = (bits & 0x7FFFFFFF) >= 0x7F800000
    quiet = bits | np.where((bits & 0x7FFFFFFF) > 0x7F800000, np.uint32(0x400000), np.uint32(0))
    return np.where(special, quiet, bits + add) & ~mask


def _halves(x: F32, rounding: Rounding, rng: Uniform) -> Stored:
    from scrimp.formats.catalogue import ELEMENTS

    uniform = rng.random(x.shape) if rng is not None and rounding == "stochastic" else None
    return ELEMENTS["f16"].code().encode(x, rounding, uniform).view(np.float16)
