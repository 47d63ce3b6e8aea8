"""Rotations by a randomized Hadamard matrix, for every width: the tables of the engine's operation, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def odd_factor(width: int) -> int:
    """``m`` of ``width = m·2^a``.

    >>> odd_factor(576), odd_factor(1536), odd_factor(49152)
    (9, 3, 3)
    """
    return width // (width & -width)


def signs(width: int, seed: int) -> F64:
    """``width`` numbers ±1: the top bits of SplitMix64. Source: Steele, Lea & Flood 2014, OOPSLA, figure 13."""
    gamma, first, second = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + gamma * np.arange(1, width + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * first
        z = (z ^ (z >> np.uint64(27))) * second
    return 1.0 - 2.0 * ((z ^ (z >> np.uint64(31))) >> np.uint64(63)).astype(np.float64)


def hartley(m: int) -> F64:
    """``(cos + sin)(2πi/m) / √m`` of i < m: entry ``jk mod m`` is row j, column k of an orthogonal, symmetric matrix.

    Source: Bracewell 1983, Discrete Hartley transform, J. Opt. Soc. Am. 73
    """
    angle = 2 * np.pi * np.arange(m) / m
    return np.asarray((np.cos(angle) + np.sin(angle)) / np.sqrt(m))


@lru_cache(maxsize=16)
def table(width: int, seed: int) -> tuple[float, ...]:
    """What the operation ``hadamard`` carries: ``width`` signs times ``2^(-a/2)``, then the Hartley numbers.

    Kept: hundreds of operations of a network share two or three.
    """
    m = odd_factor(width)
    return (*(signs(width, seed) / np.sqrt(width // m)).tolist(), *hartley(m).tolist())


def rotate(x: NDArray[Any], seed: int, *, stretches: int = 1, inverse: bool = False) -> F64:
    """``R x`` of every vector along the last axis, with ``inverse`` ``Rᵀ x``; each of ``stretches`` is cut out alike::

        R = (F_m ⊗ H_p / √p) diag(signs)        width of a stretch = m·p, p a power of two

    H_p is Sylvester's Hadamard matrix, F_m the Hartley transform of the odd factor: each entry of R is at most
    ``√(2 / width)``, so that what was one large number is spread over all.

    Shapes
        x ``(…, K)`` → ``(…, K)`` float64; ``stretches`` divide K
    Error
        ``R Rᵀ = I``: both factors are orthogonal and symmetric.
    Source
        Tseng et al. 2024, arXiv:2402.04396, section 3 (signs and Hadamard); the odd factor is ours
    """
    return turn(x, table(x.shape[-1] // stretches, seed), stretches=stretches, inverse=inverse)


def turn(x: NDArray[Any], floats: Sequence[float], *, stretches: int = 1, inverse: bool = False) -> F64:
    """:func:`rotate` by the :func:`table` of an operation."""
    width = x.shape[-1] // stretches
    m = odd_factor(width)
    p = width // m
    y: F64 = np.asarray(x, np.float64).reshape(-1, m, p)
    flip, mix = np.asarray(floats[:width]).reshape(m, p), np.asarray(floats[width:])
    if not inverse:
        y = y * flip
    if m > 1:
        at = np.arange(m)
        y = np.matmul(mix[np.outer(at, at) % m], y)
    half = 1
    while half < p:
        y = y.reshape(-1, p // (2 * half), 2, half)
        y = np.stack([y[:, :, 0] + y[:, :, 1], y[:, :, 0] - y[:, :, 1]], axis=2)
        half *= 2
    y = y.reshape(-1, m, p)
    return np.ascontiguousarray(y * flip if inverse else y).reshape(x.shape)
