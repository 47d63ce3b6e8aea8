"""Codebooks: levels chosen for a distribution, or learned from the tensor itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import Code, listed

#: Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero. Source: Dettmers et al. 2023,
#: arXiv:2305.14314, appendix E; float32.
NF4 = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
       -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
       0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)  # fmt: skip
#: Least absolute error for the weights of a normal block of 64 over their largest magnitude, with -1, 0 and 1 pinned.
#: Source: Yoshida 2023, arXiv:2306.06965; every level is the median of its cell (tests/formats/test_codebooks.py).
AF4 = (-1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0, 0.04273164, 0.12934483,
       0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0)  # fmt: skip
#: llama.cpp's non-linear quants.
IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


@dataclass(frozen=True, slots=True)
class Codebook:
    """Levels in code order. Midpoints separate them; ties go to the even code."""

    bits: int
    levels: tuple[float, ...]

    def code(self) -> Code:
        return _code(self)


@cache
def _code(book: Codebook) -> Code:
    # Levels as float32, which is how they are decoded: a level then encodes to itself.
    return listed(book.bits, np.array(book.levels, np.float32).astype(np.float64))


@dataclass(frozen=True, slots=True)
class Learned:
    """A codebook of ``2^bits`` float32 levels that every tensor learns and stores for itself (kmeans.py)."""

    bits: int

    def code(self) -> Code:
        """What levels are before a tensor is seen: evenly spaced, to name a width and a range."""
        return _code(Codebook(self.bits, tuple(np.linspace(-1, 1, 2**self.bits).tolist())))


@dataclass(frozen=True, slots=True)
class Steps:
    """A table in 8 bits: ``factor * levels[code]`` in place of each number, for products of integers."""

    levels: NDArray[np.int8]
    factor: np.float32

    def error(self, table: NDArray[np.float32]) -> float:
        """The largest difference from ``table``, as a share of its largest magnitude; 0 where 8 bits hold it."""
        off = np.abs(table.astype(np.float64) - np.float64(self.factor) * self.levels)
        return float(off.max() / np.abs(table).max()) if off.any() else 0.0


def in_steps(table: NDArray[np.float32]) -> Steps:
    """The integers up to 127 whose multiples are nearest to ``table``, in the sum of squares; the smallest such ones.

    Exact where a multiple is: e2m1 is halves, IQ4_NL integers. For others each largest integer is tried, with the
    factor that fits it best: NF4 ends within 0.4 % of its largest level. A table with NaN or infinity: factor NaN.

    >>> in_steps(np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6]))
    Steps(levels=array([ 0,  1,  2,  3,  4,  6,  8, 12], dtype=int8), factor=np.float32(0.5))
    """
    numbers = table.astype(np.float64)
    peak = np.abs(numbers).max()
    if not np.isfinite(peak) or peak == 0:
        return Steps(np.zeros(table.shape, np.int8), np.float32(0 if peak == 0 else np.nan))
    largest = np.arange(1, 128)[:, None]
    levels = np.rint(numbers / peak * largest)
    fitted = (levels @ numbers) / np.square(levels).sum(axis=1)
    factors = np.concatenate([peak / largest[:, 0], fitted]).astype(np.float32)
    both = np.concatenate([levels, levels])
    errors = np.square(numbers / peak - both * (factors[:, None] / peak)).sum(axis=1)
    best = int(np.argmin(errors))
    return Steps(both[best].astype(np.int8), factors[best])
