"""The compiled core's rounding of Levels: the same codes and values, many at a time, without Python's lock."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.engine import pick_isa
from scrimp.formats.code import F64, Code, Codes
from scrimp.formats.element import Element
from scrimp.formats.rounding import to_codes, to_numbers
from scrimp.formats.scale_types import divisor
from scrimp.quantize.grid import Levels
from scrimp.tensors import F32

_U32 = NDArray[np.uint32]


def rounding_of(levels: Levels) -> _core.Rounding:
    """How numbers divided by their scale become codes."""
    element = levels.format.element
    if levels.format.has_min:
        return _core.Rounding.integers(0.0, element.levels - 1.0)
    if element.kind in ("int", "ternary"):
        return _core.Rounding.integers(-float(element.zero), element.levels - 1.0 - element.zero)
    return _table(element, levels.code)


def weighted_sums(w: F32, levels: Levels, importance: F32, scale: F32, low: F32 | None) -> F64:
    """``Σh(w - ŵ)²``, ``Σhq``, ``Σhq²`` and ``Σhwq`` of every block, q being what its codes mean before the scale.

    Shapes
        w (G, M): a block is a column. importance h (G,), scale and low (M,) or (1,). Returns (4, M).
    """
    blocks = w.shape[1]
    scale, low = _each(scale, blocks), None if low is None else _each(low, blocks)
    sums = np.empty((4, blocks), np.float32)
    if w.strides[1] != w.itemsize:
        w = np.ascontiguousarray(w)
    _core.weighted_sums(rounding_of(levels), w, importance, scale, divisor(scale), low, sums, pick_isa())
    return sums.astype(np.float64)


def _each(values: F32, blocks: int) -> F32:
    return np.ascontiguousarray(np.broadcast_to(values, (blocks,)), np.float32)


@lru_cache(maxsize=8)
def _table(element: Element, code: Code | None) -> _core.Rounding:
    """Levels in ascending order, and the first float32 that belongs to each but the lowest.

    Where one level ends is found by bisection of what ``to_codes`` says: rounding grows with the number.
    """
    every = np.arange(element.levels, dtype=np.uint16)
    numbers = _numbers(element, code, every)
    keys = np.unique(_key(numbers[np.isfinite(numbers)].astype(np.float32)))
    codes, first = np.unique(to_codes(element, _number(keys), code=code), return_index=True)
    ascending = np.argsort(first)
    codes, keys = codes[ascending], keys[first[ascending]]
    rank = np.zeros(2**16, np.int64)
    rank[codes] = np.arange(len(codes))
    below, above = keys[:-1].astype(np.int64), keys[1:].astype(np.int64)  # the level, the next one
    while (below + 1 < above).any():
        middle = (below + above) // 2
        reached = rank[to_codes(element, _number(middle.astype(np.uint32)), code=code)] > np.arange(len(codes) - 1)
        below, above = np.where(reached, below, middle), np.where(reached, middle, above)
    count = 1 << max(1, (len(codes) - 1).bit_length())
    bounds = np.full(count - 1, np.nan, np.float32)
    bounds[: len(above)] = _number(above.astype(np.uint32))
    padding = np.full(count - len(codes), codes[-1])
    codes = np.concatenate([codes, padding]).astype(np.uint16)
    return _core.Rounding.table(bounds, _numbers(element, code, codes), codes)


def _numbers(element: Element, code: Code | None, codes: Codes) -> F32:
    """What codes mean before the scale: a learned table's own levels, not what the element says of them."""
    return (to_numbers(element, codes) if code is None else code.decode(codes)).astype(np.float32)


def _key(x: F32) -> _U32:
    """float32 as unsigned integers of the same order; -0 comes just before 0."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000)).astype(np.uint32)


def _number(keys: _U32) -> F32:
    return np.where(keys >> 31, keys & np.uint32(0x7FFFFFFF), ~keys).astype(np.uint32).view(np.float32)
