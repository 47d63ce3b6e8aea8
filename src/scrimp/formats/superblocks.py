"""Two levels of scales, as in llama.cpp's K-quants: blocks whose scales are small integers of a super-block's float16.

::

    q2_k, q4_k, q5_k   w = (d·s)·code - dmin·m     s, m unsigned integers per block, d and dmin float16 per super-block
    q3_k, q6_k         w = (d·s)·(code - zero)     s a signed integer per block

What is stored decodes to llama.cpp's numbers, bit for bit. How it is chosen is our own: a least-squares line through
every block, then the integers next to what that asks for, by squared error with the scales as they are stored.
A ragged last super-block has fewer blocks; a ragged last block is filled up with its last weight, which counts nothing.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import F64, Codes, Rounding
from scrimp.formats.format import Format
from scrimp.formats.rounding import Uniform, to_integers
from scrimp.formats.scale_types import DTYPES, F32, RANGES, Stored, at_least

_CHUNK = 1 << 15
#: By how many steps the codes of a block overshoot its range before the line is fitted.
_STRETCHES = np.linspace(-1, 1, 11)


def encode(
    w: F32, format: Format, rounding: Rounding, rng: Uniform
) -> tuple[Codes, Stored, Stored | None, dict[str, Stored]]:
    """``w (N, K)`` → codes ``(N, K)``, integer scales and mins ``(N, groups)``, and the super-blocks' own.

    A super-block with NaN or infinity gets a NaN scale.
    """
    assert format.scale is not None
    assert format.span is not None
    (rows, cols), span, group = w.shape, format.span, format.group(w.shape[1])
    groups, supers = format.groups(cols), format.supers(cols)
    counted = (np.arange(supers * span) < cols).reshape(supers, span // group, group).astype(np.float64)
    codes = np.empty(w.shape, np.uint8)
    scales, mins = (np.empty((rows, groups), DTYPES[format.scale]) for _ in range(2))
    units, min_units = (np.empty((rows, supers), np.float16) for _ in range(2))
    for row in range(0, rows, step := max(1, _CHUNK // cols)):
        at = slice(row, min(row + step, rows))
        padded = np.pad(w[at].astype(np.float64), ((0, 0), (0, supers * span - cols)), mode="edge")
        blocks = padded.reshape(-1, supers, span // group, group)
        bad = ~np.isfinite(blocks).all(axis=(2, 3))
        blocks[bad] = 0
        chosen = _choose(blocks, counted, format)
        found = _codes(blocks, *_values(*chosen), format, rounding, rng)
        codes[at] = (found + _zero(format)).reshape(len(blocks), -1)[:, :cols].astype(np.uint8)
        scales[at], mins[at] = (part.reshape(len(blocks), -1)[:, :groups] for part in chosen[:2])
        units[at], min_units[at] = (np.where(bad, np.float16(np.nan), unit) for unit in chosen[2:])
    extra: dict[str, Stored] = {"super_scales": units}
    if not format.has_min:
        return codes, scales, None, extra
    return codes, scales, mins, extra | {"super_mins": min_units}


def _zero(format: Format) -> int:
    return 0 if format.has_min else format.element.zero


def _choose(blocks: F64, counted: F64, format: Format) -> tuple[F64, F64, Stored, Stored]:
    """Blocks ``(R, S, B, G)`` → integer scales and mins ``(R, S, B)``, float16 ``d`` and ``dmin`` ``(R, S)``."""
    assert format.scale is not None
    low, high = RANGES[format.scale]
    scales, mins = (_line if format.has_min else _slope)(blocks, counted, format)
    seen = counted.any(axis=-1)
    d, dmin = _unit(scales * seen, low, high), _unit(mins * seen, 0, high)
    nearest = _integers(scales, d, low, high), _integers(mins, dmin, 0, high)
    best, least = nearest, _error(blocks, counted, *_values(*nearest, d, dmin), format)
    for by, down in product((0, -1, 1), (0, -1, 1) if format.has_min else (0,)):
        trial = np.clip(nearest[0] + by, low, high), np.clip(nearest[1] + down, 0, high)
        error = _error(blocks, counted, *_values(*trial, d, dmin), format)
        better = error < least
        best = np.where(better, trial[0], best[0]), np.where(better, trial[1], best[1])
        least = np.where(better, error, least)
    return *best, d, dmin


def _line(x: F64, counted: F64, format: Format) -> tuple[F64, F64]:
    """``scale`` and ``min >= 0`` of ``w ≈ scale·code - min``, fitted to codes of several spacings; the best of each."""
    top = format.element.levels - 1
    low = np.minimum(x.min(axis=-1), 0)
    extent = x.max(axis=-1) - low
    scale, offset = extent / top, low
    least = np.full(low.shape, np.inf)
    n, sum_x = counted.sum(axis=-1), (x * counted).sum(axis=-1)
    for stretch in _STRETCHES:
        inverse = np.divide(top + stretch, extent, out=np.zeros_like(extent), where=extent > 0)
        codes = np.clip(np.rint((x - low[..., None]) * inverse[..., None]), 0, top)
        weighted = codes * counted
        c, cc, xc = weighted.sum(axis=-1), (weighted * codes).sum(axis=-1), (weighted * x).sum(axis=-1)
        det = n * cc - c * c
        slope, start = (_ratio(part, det) for part in (n * xc - sum_x * c, sum_x * cc - c * xc))
        slope, start = np.where(start > 0, _ratio(xc, cc), slope), np.minimum(start, 0)
        error = slope * (slope * cc + 2 * start * c - 2 * xc) + start * (start * n - 2 * sum_x)
        better = (det > 0) & (error < least)
        scale, offset = np.where(better, slope, scale), np.where(better, start, offset)
        least = np.where(better, error, least)
    return np.maximum(scale, 0), -offset


def _slope(x: F64, counted: F64, format: Format) -> tuple[F64, F64]:
    """``scale`` of ``w ≈ scale·code`` with the sign that gives the longer side the longer side of the codes."""
    half = format.element.zero
    high, low = x.max(axis=-1), x.min(axis=-1)
    peak = np.where(-low > high, low, high)
    scale, most = -peak / half, np.zeros_like(peak)
    for stretch in _STRETCHES:
        inverse = _ratio(-(half + stretch), peak)
        codes = np.clip(np.rint(x * inverse[..., None]), -half, half - 1)
        weighted = codes * counted
        cc, xc = (weighted * codes).sum(axis=-1), (weighted * x).sum(axis=-1)
        slope = _ratio(xc, cc)
        better = slope * xc > most
        scale, most = np.where(better, slope, scale), np.where(better, slope * xc, most)
    return scale, np.zeros_like(scale)


def _ratio(of: F64 | float, by: F64) -> F64:
    """0 where ``by`` is 0."""
    return np.divide(of, by, out=np.zeros_like(by), where=by != 0)


def _unit(values: F64, low: int, high: int) -> Stored:
    """The smallest float16 whose ``low`` … ``high`` multiples reach all of ``values (R, S, B)``.

    With signed integers the largest magnitude gets ``low``, the longer side.
    """
    largest = np.abs(values).max(axis=-1)
    if low == 0:
        return at_least(largest / high, "f16")
    first = np.take_along_axis(values, np.abs(values).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    size = at_least(largest / -low, "f16").astype(np.float16)
    return np.where(first > 0, -size, size)


def _integers(values: F64, unit: Stored, low: int, high: int) -> F64:
    return np.clip(
        np.rint(_ratio(values, np.broadcast_to(unit.astype(np.float64)[..., None], values.shape))), low, high
    )


def _values(scales: F64, mins: F64, d: Stored, dmin: Stored) -> tuple[F32, F32]:
    """The scale and min of every block as they are decoded: float32, rounded once."""
    return scales.astype(np.float32) * d.astype(np.float32)[..., None], (
        mins.astype(np.float32) * dmin.astype(np.float32)[..., None]
    )


def _codes(x: F64, scale: F32, less: F32, format: Format, rounding: Rounding = "even", rng: Uniform = None) -> F32:
    """Before ``zero`` is added."""
    by = np.where(scale == 0, np.inf, scale)[..., None]
    steps = ((x + less[..., None]) / by).astype(np.float32)
    uniform = rng.random(x.shape) if rng is not None and rounding == "stochastic" else None
    zero = _zero(format)
    return np.clip(to_integers(steps, rounding, uniform), -zero, format.element.levels - 1 - zero)


def _error(x: F64, counted: F64, scale: F32, less: F32, format: Format) -> NDArray[np.float64]:
    off = _codes(x, scale, less, format) * scale[..., None].astype(np.float64) - less[..., None] - x
    return np.asarray((off * off * counted).sum(axis=-1))
