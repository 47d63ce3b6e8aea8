"""llama.cpp's simple block types, with its arithmetic: codes from the *unrounded* float32 scale, halves away from zero.

::

    q4_0, q5_0     d = (the number of largest magnitude) / -2^(b-1)    code = trunc(w·(1/d) + 2^(b-1) + ½)
    q4_1, q5_1     d = (max - min) / (2^b - 1)                         code = trunc((w - min)·(1/d) + ½)
    q8_0           d = max|w| / 127                                    code = round half away(w·(1/d))
    tq1_0, tq2_0   d = max|w|                                          trit = round half away(w·(1/d))

``d`` and ``min`` are stored as f16. Oracle: the ``gguf`` package's NumPy quantizers, byte for byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import Codes
from scrimp.formats.format import Format
from scrimp.formats.rounding import to_integers
from scrimp.formats.scale_types import F32, Stored

_F16 = np.float32(65504)


def encode(blocks: F32, format: Format) -> tuple[Codes, Stored, Stored | None]:
    """Blocks ``(R, g, 32 or 256)`` → codes as this package numbers them, d and min ``(R, g)``."""
    element = format.element
    if format.has_min:
        return _affine(blocks, 2**element.bits - 1)
    if element.name in ("int4", "int5"):
        return _signed(blocks, element.zero)
    d = (np.abs(blocks).max(axis=-1) / np.float32(127 if element.name == "int8" else 1)).astype(np.float32)
    steps = to_integers(blocks * _inverse(d)[..., None], "away") + element.zero
    return np.clip(steps, 0, element.levels - 1).astype(np.uint8), _half(d), None


def _signed(blocks: F32, half: int) -> tuple[Codes, Stored, None]:
    first = np.abs(blocks).argmax(axis=-1)[..., None]
    d = np.take_along_axis(blocks, first, axis=-1)[..., 0] / np.float32(-half)
    steps = np.trunc(blocks * _inverse(d)[..., None] + np.float32(half + 0.5))
    return np.clip(steps, 0, 2 * half - 1).astype(np.uint8), _half(d), None


def _affine(blocks: F32, top: int) -> tuple[Codes, Stored, Stored]:
    low = blocks.min(axis=-1)
    d = (blocks.max(axis=-1) - low) / np.float32(top)
    steps = np.trunc((blocks - low[..., None]) * _inverse(d)[..., None] + np.float32(0.5))
    return np.clip(steps, 0, top).astype(np.uint8), _half(d), _half(low)


def _inverse(d: F32) -> F32:
    """``1/d`` in float32, 0 for 0."""
    with np.errstate(over="ignore"):
        return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


def _half(values: F32) -> NDArray[np.float16]:
    """f16, clamped to its finite range where llama.cpp would store infinity."""
    return np.clip(values, -_F16, _F16).astype(np.float16)
