"""Round to nearest, with the scale of each group of weights where the group's part of the output errs least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format
from scrimp.formats.code import F64
from scrimp.formats.scale_types import to_f32, to_nearest
from scrimp.quantize import rtn
from scrimp.quantize.blocks import row_chunks
from scrimp.quantize.grid import Levels, Parts, learns, levels_of, parts_of
from scrimp.quantize.objective import moments_of
from scrimp.quantize.pool import pool
from scrimp.quantize.quantized import Quantized
from scrimp.quantize.refit import keep_better
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32, Stored

#: What the scales that are there are multiplied by, then the best of those: below 1 more is clipped.
SHARES = ((1.1, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5), (1.03, 1.015, 0.985, 0.97))

#: The scale and, where the format has one, the min of every block, as stored.
Blocks = tuple[Stored, Stored | None]


def quantize(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """The clipping search of AWQ, for any format with levels::

        scale of a group of a row = argmin (w_g - ŵ_g) H_gg (w_g - ŵ_g)ᵀ        ŵ_g nearest levels, H_gg of its inputs

    over the scale that ``rtn`` chooses, the one of least error weighted by diag H, and shares of the best of them.
    The paper leaves out queries and keys; here H decides everywhere.

    Shapes
        weight (N, K), statistics of K inputs; the last group may be ragged
    Error
        Under the whole H no row errs more than with ``rtn``: one that would stays as that has it. Of one scale per
        tensor all rows change or none.
    Edge cases
        Formats whose levels don't stand still are rounded as ``rtn`` does, with a note.
    Source
        Lin et al. 2023, arXiv:2306.00978, whose code searches a clipping threshold after scaling
    """
    moments = moments_of(statistics, weight, "rtn:clip")
    plain = rtn.quantize(weight, format)
    if learns(format):
        return Quantized(plain, (f"{format.name} learns its levels with its scales: rtn:clip has nothing to work on.",))
    try:
        levels = levels_of(plain, "rtn:clip")
    except UsageError as error:
        return Quantized(plain, (error.message,))
    parts = parts_of(plain, levels)
    turned = np.ascontiguousarray(weight.T)
    found = _clipped(turned, parts, levels, moments.astype(np.float32))
    return Quantized(keep_better(plain, parts, found, weight, moments, levels))


def _clipped(w: F32, parts: Parts, levels: Levels, moments: F32) -> Parts:
    """``parts`` with other scales and mins, and the codes that are then nearest; ``w (K, N)``."""
    cols, rows = w.shape
    whole = levels.format.block == "tensor"
    size = cols if whole else levels.format.group(cols)
    codes, scales = parts.codes.copy(), parts.scales.copy()
    mins = None if parts.mins is None else parts.mins.copy()

    def work(chunk: slice) -> None:
        own = levels.rows(chunk)
        for group, begin in enumerate(range(0, cols, size)):
            at = slice(begin, begin + size)
            one = slice(0, 1) if whole else chunk
            given = scales[group, one], None if mins is None else mins[group, one]
            scale, low = _search(w[at, chunk], own, given, moments[at, at], whole=whole)
            scales[group, one] = scale
            if mins is not None and low is not None:
                mins[group, one] = low
            codes[at, chunk] = own.codes(w[at, chunk], own.value(scale), own.low(low))

    list(pool().map(work, [slice(0, rows)] if whole else row_chunks(rows, size)))
    return Parts(codes, scales, mins)


def _search(w: F32, levels: Levels, given: Blocks, moments: F32, *, whole: bool) -> Blocks:
    """The best scale and min of every block ``w (G, M)``."""
    best = given
    with np.errstate(all="ignore"):
        least = _error(w, levels, given, moments, whole=whole)
        weighted = choose(w, levels, np.ascontiguousarray(moments.diagonal()), whole=whole)
        best, least = _better(weighted, _error(w, levels, weighted, moments, whole=whole), best, least)
        for shares in SHARES:
            for trial in _shares(best, shares, levels):
                best, least = _better(trial, _error(w, levels, trial, moments, whole=whole), best, least)
    return best


def _better(trial: Blocks, error: F64, best: Blocks, least: F64) -> tuple[Blocks, F64]:
    """Block by block what errs less."""
    scales, mins = (
        None if new is None or old is None else np.where(error < least, new, old).astype(old.dtype)
        for new, old in zip(trial, best, strict=True)
    )
    assert scales is not None
    return (scales, mins), np.fmin(error, least)


def _shares(base: Blocks, shares: Sequence[float], levels: Levels) -> Iterator[Blocks]:
    kind, (scales, mins) = levels.grid.kind, base
    exact = levels.value(scales).astype(np.float64)
    low = None if mins is None else to_f32(mins, kind).astype(np.float64)
    for share in shares:
        yield levels.grid.nearest(exact * share), None if low is None else to_nearest(low * share, kind)


def _error(w: F32, levels: Levels, trial: Blocks, moments: F32, *, whole: bool) -> F64:
    """``d H dᵀ`` of every block, or of all together; infinite where the values are."""
    scale, low = levels.value(trial[0]), levels.low(trial[1])
    apart = levels.values(levels.codes(w, scale, low), scale, low) - w
    found = np.einsum("gm,gm->m", apart, moments @ apart).astype(np.float64)
    found = found.sum(keepdims=True) if whole else found
    return np.where(np.isfinite(found), found, np.inf)
