"""A stored weight as integers of eight bits, times one number per row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats.rounding import to_numbers
from scrimp.integer.program import HIGH, I8, LOW
from scrimp.tensors import QTensor

F64 = NDArray[np.float64]
#: Levels between integers become integers when multiplied with a power of two; more than this leaves eight bits.
_FRACTION_BITS = 7


def integers(name: str, tensor: QTensor) -> tuple[I8, F64, str]:
    """``W (N, K)`` → integers (N, K), scales (N,), and what the integers can be: "ternary", "binary", "int2" … "int8".

    ``integer · scale`` is the weight. Refused, with the tensor's name, where no such pair exists: floats, mins, more
    than one scale in a row, levels that are no multiples of one number within eight bits.
    """
    format, (rows, cols) = tensor.format, tensor.shape
    if format.element.kind == "float":
        raise _refused(name, tensor, "stores floats")
    if format.has_min:
        raise _refused(name, tensor, "has mins, which a product of integers would have to add")
    if format.scale is not None and format.groups(cols) > 1:
        raise _refused(name, tensor, f"has {format.groups(cols)} scales in a row of {cols:,} inputs")
    if "shifts" in tensor.extra:
        raise _refused(name, tensor, "has shifts of pairs")
    levels, unit = _levels(name, tensor)
    scales = np.ones((rows, 1)) if format.scale is None else tensor.row_scales().astype(np.float64)
    if not np.isfinite(scales).all():
        raise Refused(f"{name} has scales that are infinite or NaN.", hint="its training diverged")
    return levels.take(tensor.codes()), scales[:, 0] * unit, _element(levels)


def _levels(name: str, tensor: QTensor) -> tuple[I8, float]:
    """The integer of every code, and what 1 is worth before the scale."""
    element = tensor.format.element
    if "codebook" in tensor.extra:
        values = tensor.extra["codebook"].astype(np.float64)
    else:
        count = len(element.tabulated()) if element.kind == "table" else element.levels
        values = to_numbers(element, np.arange(count)).astype(np.float64)
    for bits in range(_FRACTION_BITS + 1):
        found = np.ldexp(values, bits)
        if np.array_equal(found, np.rint(found)) and found.min() >= LOW and found.max() <= HIGH:
            return found.astype(np.int8), 2.0**-bits
    raise _refused(name, tensor, "has levels that are no integers of eight bits times one number")


def _element(levels: I8) -> str:
    low, high = int(levels.min()), int(levels.max())
    if set(levels.tolist()) <= {-1, 1}:
        return "binary"
    if low >= -1 and high <= 1:
        return "ternary"
    return f"int{max(high.bit_length(), (-low - 1).bit_length()) + 1}"


def _refused(name: str, tensor: QTensor, why: str) -> Refused:
    return Refused(f"{name} in {tensor.format.name} {why}: it does not lower to integers.",
                   hint="use ternary:row, int4:row, int8:tensor …: one scale per row or tensor")  # fmt: skip
