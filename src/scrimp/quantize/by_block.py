"""Codes from scales: every block's scale is chosen by itself, and its weights become the nearest levels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scrimp.formats.code import code_type
from scrimp.formats.scale_types import DTYPES
from scrimp.quantize.blocks import FRESH, row_chunks
from scrimp.quantize.grid import Levels, Parts
from scrimp.quantize.pool import pool
from scrimp.tensors import F32, Stored

#: ``(w (G, M), the inputs they multiply, levels, whole)`` → scales and mins ``(M,)``; ``(1,)`` where all are one block.
Solve = Callable[[F32, slice, Levels, bool], tuple[Stored, Stored | None]]


def nearest(weight: F32, levels: Levels, solve: Solve) -> Parts:
    """``weight (N, K)`` taken apart, with the scales and mins that ``solve`` gives; the last group may be ragged."""
    format = levels.format
    assert format.scale is not None
    w = np.ascontiguousarray(weight.T, np.float32)
    cols, rows = w.shape
    whole, group = format.block == "tensor", format.group(cols)
    shape = (1, 1) if whole else (format.groups(cols), rows)
    codes = np.empty(w.shape, code_type(format.element.bits))
    scales, mins = (np.zeros(shape, DTYPES[format.scale]) for _ in range(2))

    def work(at: slice) -> None:
        part = levels.rows(at)
        for g, begin in enumerate(range(0, cols, group)):
            inputs = slice(begin, min(begin + group, cols))
            block = np.ascontiguousarray(w[inputs, at])
            scale, low = solve(block, inputs, part, whole)
            scales[g, at] = scale
            if low is not None:
                mins[g, at] = low
            codes[inputs, at] = part.codes(block, part.value(scale), part.low(low))

    list(pool().map(work, [slice(None)] if whole else row_chunks(rows, group, FRESH)))
    return Parts(codes, scales, mins if format.has_min else None)
