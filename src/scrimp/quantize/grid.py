"""The numbers a Format can store in a column of weights: what every method rounds to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.formats import Format, kmeans
from scrimp.formats.code import Code, Codes, code_type, listed
from scrimp.formats.codebooks import Learned
from scrimp.formats.rounding import to_codes, to_numbers
from scrimp.formats.scale_types import divisor, from_f32, to_f32
from scrimp.formats.scales import Grid, unit_of
from scrimp.tensors import F32, QTensor, Stored, from_codes


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Rounding to a Format whose scales are known. Weights lie with rows along the last axis, ``(…, N)``, so that the
    scales, mins and second scales of a column are vectors ``(N,)``."""

    format: Format
    grid: Grid  #: the scales that can be stored; its unit is ``(N,)``, ``(1,)`` or None
    code: Code | None = field(default=None, repr=False)  #: a table that saturates where the element's own overflows
    codebook: F32 | None = field(
        default=None, repr=False
    )  #: levels that were learned, by code; ``code`` is their table

    def learned(self, codebook: F32) -> Levels:
        """The same with other levels in place of those that were learned."""
        return replace(self, code=listed(self.format.element.bits, codebook.astype(np.float64)), codebook=codebook)

    def codes(self, w: F32, scale: F32, low: F32 | None = None) -> Codes:
        """The nearest level; what lies beyond the last one gets the last one. ``scale`` and ``low`` as :meth:`value`
        gives them; a scale of 0 gives the code of zero."""
        element = self.format.element
        with np.errstate(over="ignore", under="ignore"):
            steps = (w if low is None else w - low) / divisor(scale)
        if low is None:
            return to_codes(element, steps, code=self.code)
        np.rint(steps, out=steps)
        np.clip(steps, 0, element.levels - 1, out=steps)
        return steps.astype(code_type(element.bits))

    def numbers(self, codes: Codes) -> F32:
        """What codes mean before scale and min."""
        if self.codebook is not None:
            return self.codebook.take(codes)
        return codes.astype(np.float32) if self.format.has_min else to_numbers(self.format.element, codes)

    def values(self, codes: Codes, scale: F32, low: F32 | None = None) -> F32:
        """The weights that codes stand for, bit for bit as ``QTensor.dequantize`` has them."""
        found = self.numbers(codes) * scale
        return found if low is None else found + low

    def value(self, stored: Stored) -> F32:
        """A stored scale as it multiplies."""
        return self.grid.value(stored)

    def low(self, stored: Stored | None) -> F32 | None:
        """A stored min as it is added."""
        return None if stored is None else to_f32(stored, self.grid.kind)

    def rows(self, at: slice | NDArray[np.intp]) -> Levels:
        """The same for some of the rows."""
        unit = self.grid.unit
        if unit is None or unit.size == 1:
            return self
        return replace(self, grid=Grid(self.grid.kind, unit[at]))

    def tensor(self, codes: Codes, scales: Stored, mins: Stored | None = None) -> QTensor:
        """Codes ``(K, N)``, scales and mins ``(groups, N)`` as stored; ``(1, 1)`` for one scale per tensor."""
        unit = self.grid.unit
        extra: dict[str, Stored] = {} if self.codebook is None else {"codebook": self.codebook}
        if unit is not None:
            name = "tensor_scale" if self.format.second == "tensor" else "row_scales"
            extra[name] = unit.reshape(-1, 1)
        turned = np.ascontiguousarray(codes.T), np.ascontiguousarray(scales.T)
        return from_codes(self.format, *turned, None if mins is None else np.ascontiguousarray(mins.T), extra)


def levels_for(weight: F32, format: Format, method: str) -> Levels:
    """The Levels of ``weight (N, K)``; UsageError, in the name of ``method``, for formats without codes to choose.

    NaN and infinity are Refused.
    """
    refuse(format, method)
    if not np.isfinite(weight).all():
        bad = int(weight.size - np.isfinite(weight).sum())
        raise Refused(f"{bad:,} of {weight.size:,} weights are NaN or infinite.", hint="the source is damaged")
    unit = unit_of(weight, format)
    assert format.scale is not None
    levels = Levels(format, Grid(format.scale, None if unit is None else unit.reshape(-1)), _saturating(format))
    return levels.learned(codebook_of(weight, format)) if learns(format) else levels


def levels_of(tensor: QTensor, method: str) -> Levels:
    """The Levels that a stored tensor's codes and scales were taken from."""
    format = tensor.format
    refuse(format, method)
    unit: F32 | None = None
    if format.second == "tensor":
        unit = tensor.extra["tensor_scale"].astype(np.float32)
    elif format.second == "row":
        tiles = tensor.extra["row_scales"].astype(np.float32)
        unit = tiles.transpose(0, 2, 1).reshape(-1)[: tensor.shape[0]]
    assert format.scale is not None
    levels = Levels(format, Grid(format.scale, unit), _saturating(format))
    return levels.learned(tensor.extra["codebook"].astype(np.float32)) if learns(format) else levels


def learns(format: Format) -> bool:
    """Whether each tensor learns the format's levels for itself."""
    return isinstance(format.element.spec, Learned)


def codebook_of(weight: F32, format: Format, importance: F32 | None = None, *, linear: bool = False) -> F32:
    """Levels learned from ``weight (N, K)``, where an error at input k counts ``importance[k]``."""
    found = kmeans.sample(weight, format.group(weight.shape[1]), whole=format.block == "tensor", importance=importance)
    return kmeans.learn(*found, format.element.bits, linear=linear)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A tensor taken apart, inputs first: what :meth:`Levels.tensor` puts together."""

    codes: Codes  #: (K, N)
    scales: Stored  #: (groups, N), or (1, 1) for one scale per tensor
    mins: Stored | None

    def rows(self, at: slice) -> Parts:
        """The same of some of the rows."""
        if self.scales.shape[1] < self.codes.shape[1]:
            return Parts(self.codes[:, at], self.scales, self.mins)
        return Parts(self.codes[:, at], self.scales[:, at], None if self.mins is None else self.mins[:, at])

    def where(self, rows: NDArray[np.bool_], other: Parts) -> Parts:
        """These rows of this one, the others of the other."""
        mins = None if self.mins is None or other.mins is None else _where(rows, self.mins, other.mins)
        return Parts(np.where(rows, self.codes, other.codes), _where(rows, self.scales, other.scales), mins)


def _where(rows: NDArray[np.bool_], a: Stored, b: Stored) -> Stored:
    return np.where(rows, a, b).astype(a.dtype)


def parts_of(tensor: QTensor, levels: Levels) -> Parts:
    """Codes, scales and mins as they were stored."""
    rows = slice(0, 1 if tensor.format.block == "tensor" else None)
    scales = levels.rows(rows).grid.nearest(tensor.row_scales()[rows].T.astype(np.float64))
    mins = None if tensor.mins is None else from_f32(tensor.row_mins()[rows].T, levels.grid.kind)
    return Parts(np.ascontiguousarray(tensor.codes().T), scales, mins)


def refuse(format: Format, method: str) -> None:
    """UsageError for a format whose codes are not the nearest level of one table times a scale."""
    says, hint = "", ""
    if format.scale is None:
        says, hint = "stores values as they are, so only their rounding can be chosen", "use rtn, or int8:g64"
    elif format.recipe is not None and format.recipe.pairs:
        says, hint = "shifts pairs of weights together, which rounding one at a time can't", "use rtn, or mxfp6_e3m2"
    elif format.second == "super":
        says, hint = "chooses its scales in two levels", "use rtn, or int4z:g32"
    elif format.element.kind == "table" and format.element.code().negatives == "nan":
        says, hint = "has no negative numbers", "use rtn, or fp8_e4m3:g64"
    if says:
        raise UsageError(f"{format.name} {says}: {method} has nothing to work on.", hint=hint)


def _saturating(format: Format) -> Code | None:
    """Weights that error feedback pushes beyond the last level must not become infinite."""
    if format.element.kind != "table" or learns(format):
        return None
    code = format.element.code()
    return None if code.beyond is None and code.infinite is None else code.overflowing("saturate")
