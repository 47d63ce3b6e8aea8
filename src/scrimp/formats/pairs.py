"""Shared micro-exponents (SMX; MX9, MX6 and MX4 of the BDR paper, not OCP's): one bit per pair halves the pair's step.

Block scale ``2^E``, ``E = floor(log2 max|w|)``; a pair whose own exponent is below E has shift 1. Its numbers are
``sign · m · 2^(E - shift - M + 1)`` with an ``M``-bit magnitude ``m``. Source: Rouhani et al. 2023, arXiv:2302.08007.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.scale_types import F32


def shifts(blocks: F32, scales: F32) -> NDArray[np.uint8]:
    """``(R, g, G)`` and powers of two ``(R, g)`` → ``(R, g, ceil(G/2))``: 1 where both of a pair are below it."""
    size = np.abs(blocks)
    if size.shape[-1] % 2:
        size = np.pad(size, ((0, 0), (0, 0), (0, 1)))
    return (np.maximum(size[..., ::2], size[..., 1::2]) < scales[..., None]).astype(np.uint8)


def spread(shift: NDArray[np.uint8], cols: int) -> F32:
    """``2^-shift`` for every weight of a row."""
    return np.where(np.repeat(shift, 2, axis=-1)[..., :cols] > 0, np.float32(0.5), np.float32(1))


def divide(blocks: F32, by: F32, shift: NDArray[np.uint8]) -> F32:
    """``w / (scale · 2^-shift)``."""
    return blocks / by / spread(shift, blocks.shape[-1])
