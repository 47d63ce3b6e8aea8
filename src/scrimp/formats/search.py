"""Scales by search: least squared error, the Newton iteration of OCTAV, a percentile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from scrimp.errors import UsageError
from scrimp.formats import lookup
from scrimp.formats.code import F64
from scrimp.formats.element import Element
from scrimp.formats.format import SIGNED_SCALES, Format
from scrimp.formats.rounding import to_codes, to_numbers
from scrimp.formats.scale_types import F32, Stored, divisor
from scrimp.formats.scales import CHOICES, Grid, emax, ideal, peaks, powers, reach_of

#: Share of the magnitudes of a block that the rule "percentile" does not clip.
PERCENTILE = 0.999
#: Of a huge block the search looks at the largest weights, which decide about clipping, and at a sample of the others.
LARGEST_SEEN = 1 << 14
SAMPLE = 1 << 18
_NEWTON_STEPS = 20


def rounded(element: Element, x: F32) -> F32:
    """``x`` as its codes decode, before the scale."""
    return to_numbers(element, to_codes(element, x))


def nearly_rounded(element: Element, x: F32) -> F32:
    """As :func:`rounded`, but elements with a table look at the upper 16 bits of a number only.

    What lies within 2^-8 of a threshold may go to the wrong side, where its error is the same within that: quick, and
    good enough to compare scales by.
    """
    if element.kind == "int" and element.step == 1:
        np.rint(x, out=x)
        return np.clip(x, -element.zero, element.levels - 1 - element.zero, out=x)
    if element.kind != "table" or element.bits > 8:
        return rounded(element, x)
    cache = element.code().cache
    if "nearby" not in cache:
        middle = ((np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000).view(np.float32)
        finite = np.where(np.isnan(middle), np.float32(np.inf), middle)
        cache["nearby"] = element.tabulated()[lookup.encode(element.code(), finite)]
    found: F32 = cache["nearby"].take(x.view(np.uint16)[..., 1::2], mode="clip")
    return found


def squared_error(
    blocks: F32,
    scales: F32,
    format: Format,
    counts: F32 | None = None,
    *,
    through: Callable[[Element, F32], F32] = rounded,
) -> F64:
    """``Σ (w - ŵ)²`` of each block ``(R, g, G)`` with its scale ``(R, g)``; weight k counts ``counts[k]`` times."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = through(format.element, blocks / divisor(scales)[..., None])
        numbers *= scales[..., None]
        numbers -= blocks
        if counts is None:
            return np.asarray(np.einsum("rgk,rgk->rg", numbers, numbers), np.float64)
        return np.asarray(np.einsum("rgk,k->rg", np.square(numbers, dtype=np.float64), counts))


def best_of(
    blocks: F32,
    candidates: list[Stored],
    format: Format,
    grid: Grid,
    counts: F32 | None = None,
    *,
    through: Callable[[Element, F32], F32] = rounded,
    peak: F32 | None = None,
) -> Stored:
    """Of several scales for every block the one that errs least; the first of equals.

    With the blocks' ``peak`` a scale that clips it by more than the least error so far, in every block, isn't tried.
    """
    best = candidates[0]
    least = squared_error(blocks, grid.value(best), format, counts, through=through)
    farthest = np.float32(_farthest(format.element))
    for candidate in candidates[1:]:
        scales = grid.value(candidate)
        if peak is not None and (np.square(np.maximum(peak - np.abs(scales) * farthest, 0)) > least).all():
            continue
        error = squared_error(blocks, scales, format, counts, through=through)
        better = error < least
        best, least = np.where(better, candidate, best).astype(best.dtype), np.where(better, error, least)
    return best


def _farthest(element: Element) -> float:
    """The largest magnitude of its numbers."""
    if element.kind == "table":
        return max(-element.code().smallest, element.code().largest)
    return float(max(element.zero, element.step * (element.levels - 1) - element.zero))


def mse(blocks: F32, format: Format, grid: Grid) -> Stored:
    """The least squared error: over a coarse grid of clipping ratios, then a fine one around each block's best.

    Powers of two: the rule "floor" and its neighbours. Lopsided elements try both signs.
    """
    tapered = format.element.tapered
    peak = peaks(blocks)
    start = CHOICES["rms" if tapered else "absmax"](blocks, format, grid)
    counts = None
    if blocks.shape[-1] > SAMPLE + LARGEST_SEEN:
        blocks, counts = _sample(blocks)
    if format.scale == "e8m0":
        base = np.frexp(peak)[1] - 1.0 - emax(format.element, reach_of(format))
        return best_of(blocks, [powers(base + step, peak, grid) for step in (0, -1, 1)], format, grid, counts)
    base = grid.value(start).astype(np.float64)
    few = isinstance(format.block, int)
    ratios = np.geomspace(1 / 32, 32, 36) if tapered else np.geomspace(0.2 if few else 1 / 256, 1.2, 14 if few else 48)
    signs = (1, -1) if format.element.lopsided and format.scale in SIGNED_SCALES else (1,)
    coarse = [start, *(grid.nearest(base * r * s) for r in ratios for s in signs)]
    best = best_of(blocks, coarse, format, grid, counts, through=nearly_rounded, peak=peak)
    around = grid.value(best).astype(np.float64)
    fine = (ratios[1] / ratios[0]) ** np.linspace(-0.9, 0.9, 10)
    finer = best_of(blocks, [best, *(grid.nearest(around * r) for r in fine)], format, grid, counts,
                    through=nearly_rounded, peak=peak)  # fmt: skip
    return best_of(blocks, [start, finer], format, grid, counts)


def _sample(blocks: F32) -> tuple[F32, F32]:
    """One huge block ``(1, 1, G)`` → some of its weights, the largest last, and what each counts for."""
    flat = blocks.reshape(-1)
    order = np.argpartition(np.abs(flat), flat.size - LARGEST_SEEN)
    others, largest = order[:-LARGEST_SEEN], order[-LARGEST_SEEN:]
    picked = others[np.random.default_rng(0).integers(0, others.size, SAMPLE)]
    counts = np.ones(SAMPLE + LARGEST_SEEN, np.float32)
    counts[:SAMPLE] = others.size / SAMPLE
    return flat[np.concatenate([picked, largest])].reshape(1, 1, -1), counts


def octav(blocks: F32, format: Format, grid: Grid) -> Stored:
    """Clip at the fixed point of ``s = Σ_{|w|>s} |w| / (4^-B/3 · #{0<|w|≤s} + #{|w|>s})``, by Newton.

    Source: Sakr et al. 2022, arXiv:2206.06501, equation 6 (B-bit signed integers).
    """
    if format.element.kind not in ("int", "ternary"):
        raise UsageError(f"{format.name}: octav assumes evenly spaced levels.", hint="use mse")
    size = np.abs(blocks).astype(np.float64)
    inner = 4.0**-format.element.bits / 3
    clip = size.mean(axis=-1)
    for _ in range(_NEWTON_STEPS):
        outside = size > clip[..., None]
        below = ((size > 0) & ~outside).sum(axis=-1)
        clip = (size * outside).sum(axis=-1) / np.maximum(inner * below + outside.sum(axis=-1), 1e-300)
    return _clipped(np.minimum(clip, size.max(axis=-1)), blocks, format, grid)


def percentile(blocks: F32, format: Format, grid: Grid) -> Stored:
    """Clip at the 99.9th percentile of the magnitudes; in small blocks that is almost the largest."""
    return _clipped(np.quantile(np.abs(blocks), PERCENTILE, axis=-1), blocks, format, grid)


def _clipped(clip: F64, blocks: F32, format: Format, grid: Grid) -> Stored:
    full = ideal(blocks, format)
    return grid.nearest(np.where(full < 0, -clip, clip) / abs(reach_of(format)))


def four_over_six(blocks: F32, format: Format, grid: Grid) -> Stored:
    """The block's largest becomes 6 or 4, whichever errs less. Source: TransformerEngine's option of that name."""
    full = ideal(blocks, format)
    return best_of(blocks, [grid.nearest(full), grid.nearest(full * 1.5)], format, grid)


SEARCHES: dict[str, Callable[[F32, Format, Grid], Stored]] = {
    "mse": mse, "octav": octav, "percentile": percentile, "four_over_six": four_over_six,
}  # fmt: skip
RULES = CHOICES | SEARCHES


def choose(blocks: F32, format: Format, grid: Grid, rule: str) -> Stored:
    """The scale of every block ``(R, g, G)`` as stored ``(R, g)``."""
    with np.errstate(over="ignore", under="ignore"):
        return RULES[rule](blocks, format, grid)
