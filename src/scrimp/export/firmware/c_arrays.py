"""Numbers as C: the narrowest array that holds them, in lines of the same width each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.export.firmware.narrow import width
from scrimp.integer.program import I32

_TYPES = {np.dtype(kind): f"{kind}_t" for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}


def array(name: str, values: NDArray[Any]) -> str:
    """``static const int8_t name[3] = {…};``, of one or two dimensions."""
    sizes = "".join(f"[{size}]" for size in values.shape)
    rows = [f"{{\n{_lines(row)}}}" for row in values] if values.ndim == 2 else [_lines(values)]
    return f"static const {_TYPES[values.dtype]} {name}{sizes} = {{\n{', '.join(rows)}}};\n"


def _lines(values: NDArray[Any]) -> str:
    literals = list(map(_literal, values.tolist()))
    per_line = 116 // (max(map(len, literals)) + 2)
    return ",\n".join("    " + ", ".join(literals[i : i + per_line]) for i in range(0, len(literals), per_line))


def _literal(value: int) -> str:
    """−2^31 has no literal of its own in C."""
    return f"{value}u" if value >= 1 << 31 else "(-2147483647 - 1)" if value == -(1 << 31) else str(value)


def numbers(name: str, values: I32) -> tuple[str, str, str]:
    """Arrays of numbers per channel in :func:`width` bytes; the names of what holds them and their high bytes."""
    wide, bytes_ = values.astype(np.int64), width(values)
    if bytes_ == 3:
        low, high = (wide & 0xFFFF).astype(np.uint16), (wide >> 16).astype(np.int8)
        return array(name, low) + array(f"{name}_high", high), name, f"{name}_high"
    return array(name, (wide if bytes_ else wide[:1]).astype(np.uint16 if bytes_ == 2 else np.int32)), name, "0"


def fields(values: Sequence[int | str]) -> str:
    return ", ".join(map(str, values))
