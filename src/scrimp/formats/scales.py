"""How a block's scale is chosen. Every rule is a line of the table at the end.

``peak`` is the largest magnitude of the block, ``reach`` the level it is mapped to, ``emax = floor(log2 reach)``::

    absmax    peak / reach, rounded up: nothing is clipped             floor   2^(floor(log2 peak) - emax)    OCP 6.3
    nearest   peak / reach, rounded to nearest (nvfp4, vsq)            ceil    2^(ceil(log2 peak) - emax)
    absmean   mean |w|  (binary, BitNet's ternary)                     rceil   2^ceil(log2(peak · f32(1/reach)))
    twn       mean of |w| above 0.7 mean |w|  (ternary weight nets)    even    floor, of the peak rounded half up to
    rms       √mean w²  (posits: typical numbers at 1)                         the element's fraction bits
    mse       least squared error over a grid (search.py)              octav, percentile   clipping point / reach

Ties, zero blocks and the ends of a scale's range are those of its type (scale_types.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scrimp.formats.code import F64
from scrimp.formats.element import Element
from scrimp.formats.floats import Float
from scrimp.formats.format import SIGNED_SCALES, Format
from scrimp.formats.integers import Fixed
from scrimp.formats.scale_types import DTYPES, F32, LARGEST, Stored, at_least, to_f32, to_nearest


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The scales a block can have: the numbers of a type, times a second scale where there is one."""

    kind: str
    unit: F32 | None = None  #: the second scale, of the same shape as the blocks' or ``(1, 1)``

    def nearest(self, ideal: F64) -> Stored:
        return to_nearest(self._relative(ideal), self.kind)

    def up(self, ideal: F64) -> Stored:
        """Not below ``ideal`` in magnitude."""
        stored = at_least(np.abs(self._relative(ideal)), self.kind)
        return self.negated(stored, ideal < 0) if (ideal < 0).any() else stored

    def value(self, stored: Stored) -> F32:
        """The scale as it multiplies: float32, one rounding where there is a unit."""
        found = to_f32(stored, self.kind)
        return found if self.unit is None else (found * self.unit).astype(np.float32)

    def negated(self, stored: Stored, where: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Stored:
        if self.kind not in SIGNED_SCALES:
            return stored
        if stored.dtype == np.uint16:  # bfloat16
            bits: Stored = stored.astype(np.uint16) ^ np.uint16(0x8000)
        else:
            bits = np.negative(stored.astype(DTYPES[self.kind]))
        return np.where(where, bits, stored).astype(stored.dtype)

    def _relative(self, ideal: F64) -> F64:
        if self.unit is None:
            return ideal
        return np.divide(ideal, self.unit, out=np.zeros(ideal.shape), where=np.broadcast_to(self.unit, ideal.shape) > 0)


def peaks(blocks: F32) -> F32:
    """``max |w|`` over the last axis; NaN where there is one. Bits without the sign grow as the numbers do."""
    size = blocks.view(np.int32) & 0x7FFFFFFF
    found: F32 = size.max(axis=-1).view(np.float32)
    return found


def signed_peaks(blocks: F32) -> F32:
    """The number of largest magnitude, with its sign; the positive one of two."""
    low, high = blocks.min(axis=-1), blocks.max(axis=-1)
    found: F32 = np.where(-low > high, low, high)
    return found


def reach_of(format: Format) -> float:
    """The level that a block's largest magnitude is mapped to."""
    return format.element.reach(signed=format.scale in SIGNED_SCALES)


def ideal(blocks: F32, format: Format) -> F64:
    """``peak / reach`` in float64, with the sign of the peak where the element is lopsided and scales are signed."""
    if format.element.lopsided and format.scale in SIGNED_SCALES:
        peak = signed_peaks(blocks)
    elif format.element.kind == "int" and format.element.zero == 0:
        peak = blocks.max(axis=-1).clip(0)  # negative numbers become 0 whatever the scale
    else:
        peak = peaks(blocks)
    return peak.astype(np.float64) / reach_of(format)


def emax(element: Element, reach: float) -> int:
    """``floor(log2 reach)``: 8 for fp8_e4m3's 448."""
    return int(np.frexp(reach)[1]) - 1


def _absmax(blocks: F32, format: Format, grid: Grid) -> Stored:
    return grid.up(ideal(blocks, format))


def _nearest(blocks: F32, format: Format, grid: Grid) -> Stored:
    return grid.nearest(ideal(blocks, format))


def _absmean(blocks: F32, format: Format, grid: Grid) -> Stored:
    return grid.nearest(np.abs(blocks).mean(axis=-1, dtype=np.float64))


def _twn(blocks: F32, format: Format, grid: Grid) -> Stored:
    size = np.abs(blocks).astype(np.float64)
    survive = size > 0.7 * size.mean(axis=-1, keepdims=True)
    total, count = (size * survive).sum(axis=-1), survive.sum(axis=-1)
    return grid.nearest(np.where(count > 0, total / np.maximum(count, 1), size.max(axis=-1)))


def _rms(blocks: F32, format: Format, grid: Grid) -> Stored:
    return grid.nearest(np.sqrt(np.square(blocks, dtype=np.float64).mean(axis=-1)))


def powers(exponents: F64, blocks_peak: F32, grid: Grid) -> Stored:
    """Scales ``2^exponents``; of an all-zero block the smallest there is."""
    power = np.ldexp(1.0, np.clip(exponents, -300, 300).astype(np.int64))
    return grid.nearest(np.where(blocks_peak > 0, power, 0.0))


def _floor(blocks: F32, format: Format, grid: Grid) -> Stored:
    peak = peaks(blocks)  # frexp, for log2 in float32 is wrong just below powers of two
    return powers(np.frexp(peak)[1] - 1.0 - emax(format.element, reach_of(format)), peak, grid)


def _ceil(blocks: F32, format: Format, grid: Grid) -> Stored:
    peak = peaks(blocks)
    fraction, exponent = np.frexp(peak)
    return powers(exponent - (fraction == 0.5) * 1.0 - emax(format.element, reach_of(format)), peak, grid)


def _rceil(blocks: F32, format: Format, grid: Grid) -> Stored:
    peak = peaks(blocks)
    fraction, exponent = np.frexp(peak * np.float32(1 / reach_of(format)))
    return powers(exponent - (fraction == 0.5) * 1.0, peak, grid)


def _even(blocks: F32, format: Format, grid: Grid) -> Stored:
    peak, reach = peaks(blocks), reach_of(format)
    spec, top = format.element.spec, emax(format.element, reach)
    bits = spec.fraction if isinstance(spec, Float) else top + (spec.fraction if isinstance(spec, Fixed) else 0)
    fraction, exponent = np.frexp(peak.astype(np.float64))
    return powers(exponent - 1.0 - top + (2 * fraction + 2.0 ** -(bits + 1) >= 2), peak, grid)


CHOICES: dict[str, Callable[[F32, Format, Grid], Stored]] = {
    "absmax": _absmax, "nearest": _nearest, "absmean": _absmean, "twn": _twn, "rms": _rms,
    "floor": _floor, "ceil": _ceil, "rceil": _rceil, "even": _even,
}  # fmt: skip


def unit_of(weight: F32, format: Format) -> F32 | None:
    """The second scale: one for the tensor ``(1, 1)``, or one per row ``(N, 1)``, so that block scales fit.

    Blocks with NaN or infinity are left out; a unit that would overflow is clamped.
    """
    if format.second is None or format.scale is None:
        return None
    size = np.abs(weight)
    largest = np.max(
        size, axis=1 if format.second == "row" else None, keepdims=True, initial=0, where=np.isfinite(size)
    )
    headroom = format.recipe.headroom if format.recipe is not None and format.scale == "e4m3" else LARGEST[format.scale]
    return np.asarray(largest.astype(np.float64) / (headroom * reach_of(format)), np.float32)
