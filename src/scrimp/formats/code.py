"""A Code: the finite set of numbers that some bits can mean, and how any other number is rounded to it.

This is the reference: a sorted table, explicit thresholds, a tie rule, an overflow policy. Every scalar format is one,
from fp8 to posits; lookup.py is the same function, fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrimp.errors import Refused

F64 = NDArray[np.float64]
Codes = NDArray[Any]  # uint8, or uint16 above 8 bits
Rounding = Literal["even", "away", "zero", "stochastic"]
ROUNDINGS: tuple[Rounding, ...] = ("even", "away", "zero", "stochastic")
#: How codes of negative numbers follow from those of positive ones: a sign bit, the two's complement, or not at all.
Mirror = Literal["sign", "complement", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """Levels in ascending order with the code of each; only the non-negative half where ``mirror`` gives the other.

    ``thresholds[i]`` separates levels ``i`` and ``i + 1``; a number on it goes to the level that is ``even``. They are
    midpoints unless the family rounds in another metric (posits by bit string, logarithms by ratio).

    Overflow
        ``beyond`` is None where everything above the last level saturates. Else what rounds to ``next_level`` or above
        gets that code: infinity, or a NaN. ``infinite`` is the same for infinity itself.
    """

    bits: int
    values: F64  #: the number of every code, in code order: NaN and infinities included
    levels: F64
    codes: Codes
    thresholds: F64
    even: NDArray[np.bool_]
    mirror: Mirror
    negative_zero: bool = False
    nan: int | None = None
    beyond: int | None = None
    infinite: int | None = None
    next_level: float = np.inf
    negatives: Literal["saturate", "nan"] = "saturate"  #: what happens below zero where there are no negative levels
    cache: dict[str, Any] = field(default_factory=dict, repr=False)  #: what lookup.py derives, once

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return float(self.levels[-1])

    @property
    def smallest(self) -> float:
        """The smallest finite number: ``-largest`` of a symmetric code."""
        return float(np.nanmin(np.where(np.isfinite(self.values), self.values, np.nan)))

    @property
    def min_positive(self) -> float:
        """The smallest number above zero."""
        return float(self.levels[self.levels > 0][0])

    def decode(self, codes: Codes) -> F64:
        """The numbers of ``codes``; a lookup."""
        return self.values[codes]

    def overflowing(self, policy: Literal["saturate", "nan"]) -> Code:
        """The same numbers with another policy: the largest number, or NaN where there is one."""
        code = None if policy == "saturate" else self.nan
        return replace(self, beyond=code, infinite=code, cache={})

    def encode(self, numbers: ArrayLike, rounding: Rounding = "even", uniform: F64 | None = None) -> Codes:
        """Codes of ``numbers``: compared in float64 with every threshold.

        ``uniform`` holds one number in [0, 1) per value for ``"stochastic"``: up where the fraction plus it reaches 1.
        Refused for NaN where no code means it.
        """
        with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
            x = np.asarray(numbers, np.float64)
        magnitude = x if self.mirror == "none" else np.abs(x)
        nan = np.isnan(x) | ((x <= 0) & (self.negatives == "nan"))
        index = self._index(np.where(nan, 0.0, magnitude), rounding, uniform)
        codes: Codes = self.codes[np.minimum(index, len(self.levels) - 1)]
        above = (index >= len(self.levels)) & ~np.isinf(x)
        if self.beyond is not None:
            codes = np.where(above, codes.dtype.type(self.beyond), codes)
        if self.infinite is not None:
            codes = np.where(np.isinf(x) & (self._mirrored(x) | (x > 0)), codes.dtype.type(self.infinite), codes)
        codes = self._negated(codes, np.signbit(x))
        if nan.any():
            if self.nan is None:
                raise Refused(f"{int(nan.sum()):,} of {x.size:,} numbers are NaN, for which there is no code.",
                              hint="clean the source, or use a format with scales: NaN marks its block")  # fmt: skip
            codes = np.where(nan, codes.dtype.type(self.nan), codes)
        return codes

    def _index(self, x: F64, rounding: Rounding, uniform: F64 | None) -> NDArray[np.intp]:
        """Which level, counted from 0; ``len(levels)`` stands for overflow."""
        last = self.levels[-1]
        levels = np.append(self.levels, self.next_level) if self.beyond is not None else self.levels
        if rounding == "zero" or rounding == "stochastic":
            below = np.clip(np.searchsorted(levels, x, "right") - 1, 0, len(levels) - 1)
            above = np.clip(np.searchsorted(levels, x, "left"), 0, len(levels) - 1)
            if rounding == "zero":
                size = np.abs(levels)
                toward = np.where(size[above] < size[below], above, below)
                # between two levels as far from zero, the one on the number's own side
                toward = np.where((size[above] == size[below]) & (x >= 0), above, toward)
                return np.where(np.isinf(x), toward, np.minimum(toward, len(self.levels) - 1))
            assert uniform is not None
            with np.errstate(invalid="ignore"):
                fraction = (x - levels[below]) / np.where(above > below, levels[above] - levels[below], 1.0)
            return np.where((above > below) & (fraction + uniform >= 1), above, below)
        thresholds = self.thresholds
        if self.beyond is not None:
            thresholds = np.append(thresholds, (last + self.next_level) / 2)
        low, high = np.searchsorted(thresholds, x, "left"), np.searchsorted(thresholds, x, "right")
        if rounding == "away":
            return np.where(x < 0, low, high)
        even = np.append(self.even, [not self.even[-1]] * (len(thresholds) + 1 - len(self.even)))
        return np.where(even[low], low, high)

    def _mirrored(self, x: F64) -> NDArray[np.bool_]:
        return np.full(x.shape, self.mirror != "none")

    def _negated(self, codes: Codes, negative: NDArray[np.bool_]) -> Codes:
        if self.mirror == "none":
            return codes
        if self.mirror == "complement":
            return np.where(negative, (1 << self.bits) - codes.astype(np.int64) & (1 << self.bits) - 1, codes).astype(
                codes.dtype
            )
        keep_zero = (codes == 0) & (not self.negative_zero)
        sign = codes.dtype.type(1 << (self.bits - 1))
        return np.where(negative & ~keep_zero, codes | sign, codes)


def code_type(bits: int) -> type[np.unsignedinteger[Any]]:
    """uint8, or uint16 for codes of more than 8 bits."""
    return np.uint8 if bits <= 8 else np.uint16


def midpoints(levels: F64) -> F64:
    """Where a number is as far from one level as from the next."""
    return (levels[:-1] + levels[1:]) / 2


def mirrored(
    bits: int,
    magnitudes: F64,
    values: F64,
    mirror: Mirror,
    *,
    thresholds: F64 | None = None,
    negative_zero: bool = False,
    nan: int | None = None,
    beyond: int | None = None,
    infinite: int | None = None,
    next_level: float = np.inf,
) -> Code:
    """A symmetric Code: ``magnitudes[c]`` is the number of code ``c``, ascending from 0."""
    codes = np.arange(len(magnitudes), dtype=code_type(bits))
    found = midpoints(magnitudes) if thresholds is None else thresholds
    return Code(bits, values, magnitudes, codes, found, codes % 2 == 0, mirror,
                negative_zero, nan, beyond, infinite, next_level)  # fmt: skip


def listed(bits: int, values: F64, *, even: NDArray[np.bool_] | None = None, nan: int | None = None) -> Code:
    """A Code of arbitrary finite ``values`` in code order; a value that comes twice is encoded as its first code.

    ``even`` says which codes win ties: by default the even ones.
    """
    levels, codes = np.unique(values[np.isfinite(values)], return_index=True)
    parity = np.arange(len(values)) % 2 == 0 if even is None else even
    return Code(bits, values, levels, codes.astype(code_type(bits)), midpoints(levels), parity[codes], "none", nan=nan)
