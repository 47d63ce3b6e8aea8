"""How well any format can do on a unit Gaussian: Shannon's line, entropy-coded uniform steps, and Lloyd–Max levels.

All by exact integrals over the cells of a quantizer; nothing is sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: dB per bit.
DB_PER_BIT = 20 * math.log10(2)
#: What uniform steps with an ideal entropy coder lose against Shannon's line, in bits: ``log2(2πe/12) / 2`` = 0.2546.
ENTROPY_CODED_BITS = 0.5 * math.log2(2 * math.pi * math.e / 12)
_erf = np.vectorize(math.erf, otypes=[float])
_erfc = np.vectorize(math.erfc, otypes=[float])


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """Levels, and what they do to a unit Gaussian when every number goes to the nearest."""

    levels: F64
    sqnr_db: float
    entropy_bits: float


def shannon_db(bits: float) -> float:
    """The rate-distortion bound of a Gaussian: no code of ``bits`` per value has a higher SQNR.

    >>> round(shannon_db(4), 2)
    24.08
    """
    return DB_PER_BIT * bits


def entropy_coded(step: float, reach: float = 40.0) -> Quantizer:
    """Uniform steps, a level at zero, every cell decoded to its mean, codes stored at their entropy (``entropy_bits``).

    Its SQNR is ``shannon_db(entropy_bits - ENTROPY_CODED_BITS)`` to 0.004 bit from 1.2 bits on.
    """
    half = math.ceil(reach / step)
    mass, moment, _ = _cells(step * np.arange(-half, half + 1.0))
    kept = mass > 1e-300
    shares, means = mass[kept], moment[kept] / mass[kept]
    noise = 1 - float(np.sum(means**2 * shares))
    return Quantizer(means, -10 * math.log10(noise), float(-(shares * np.log2(shares)).sum()))


def judge(levels: F64) -> Quantizer:
    """SQNR and entropy of ascending ``levels`` on a unit Gaussian, cells bounded by midpoints."""
    mass, moment, _ = _cells(levels)
    noise = 1 - float(np.sum(2 * levels * moment - levels**2 * mass))
    shares = mass[mass > 0]
    return Quantizer(levels, -10 * math.log10(noise), float(-(shares * np.log2(shares)).sum()))


def uniform(step: float, count: int) -> Quantizer:
    """``count`` evenly spaced levels around zero."""
    return judge(np.asarray(step * (np.arange(count) - (count - 1) / 2), np.float64))


@cache
def lloyd_max(count: int) -> Quantizer:
    """The ``count`` levels of least squared error: each the mean of its cell. Newton from Panter and Dite's.

    >>> round(lloyd_max(16).sqnr_db, 2)
    20.22
    """
    normal = NormalDist(sigma=math.sqrt(3))
    levels = np.array([normal.inv_cdf((i + 0.5) / count) for i in range(count)])
    for _ in range(40):
        mass, moment, density = _cells(levels)
        mean = moment / mass
        edges = (levels[:-1] + levels[1:]) / 2
        # A level moves the edges on both sides by half of itself, and an edge the means of the two cells it separates.
        of_lower = density * (edges - mean[:-1]) / mass[:-1] / 2
        of_upper = density * (mean[1:] - edges) / mass[1:] / 2
        slope = np.eye(count)
        inner = np.arange(count - 1)
        slope[inner, inner] -= of_lower
        slope[inner, inner + 1] -= of_lower
        slope[inner + 1, inner] -= of_upper
        slope[inner + 1, inner + 1] -= of_upper
        step = np.linalg.solve(slope, levels - mean)
        levels = levels - step
        if np.abs(step).max() < 1e-13:
            break
    return judge((levels - levels[::-1]) / 2)


def _cells(levels: F64) -> tuple[F64, F64, F64]:
    """Of every cell its probability and first moment; of every inner edge the density."""
    edges = (levels[:-1] + levels[1:]) / 2
    density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    # Tails by erfc: a difference of two numbers near 1 would lose them.
    upper_tail = _erfc(np.abs(edges) / math.sqrt(2)) / 2
    low, high = edges[:-1], edges[1:]
    inside = (_erf(high / math.sqrt(2)) - _erf(low / math.sqrt(2))) / 2
    far = np.sign(low) * np.sign(high) > 0
    inside = np.where(far, np.abs(upper_tail[1:] - upper_tail[:-1]), inside)
    ends = [np.where(edges < 0, upper_tail, 1 - upper_tail), np.where(edges > 0, upper_tail, 1 - upper_tail)]
    mass = np.concatenate([ends[0][:1], inside, ends[1][-1:]]) if len(edges) else np.ones(1)
    padded = np.concatenate([[0.0], density, [0.0]])
    return mass, padded[:-1] - padded[1:], density
