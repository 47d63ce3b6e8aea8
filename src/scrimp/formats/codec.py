"""A matrix to codes, scales and what else a Format stores. One driver for every format; rules and rounding are tables.

Blocks are worked on as ``(R rows, g groups, G inputs)``, some 32 thousand weights at a time, so that all steps between
reading a weight and writing its code stay in cache.

NaN and infinity: a block that holds one gets a NaN scale, and decodes to NaN throughout. (vsq: its whole row; K-quants:
its super-block.) Values
stored without a scale follow the element's own rules; Refused where it has no code for NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import UsageError
from scrimp.formats import gguf_rules, kmeans, pairs, superblocks
from scrimp.formats.affine import choose_affine
from scrimp.formats.catalogue import Rule
from scrimp.formats.code import ROUNDINGS, Code, Codes, Rounding, code_type, listed
from scrimp.formats.format import Format
from scrimp.formats.rounding import Uniform, store_floats, to_codes
from scrimp.formats.scale_types import DTYPES, F32, Stored, divisor, exponent_code, from_f32
from scrimp.formats.scales import Grid, peaks, unit_of
from scrimp.formats.search import RULES, choose

_CHUNK = 1 << 15

#: How pieces of a matrix are walked: in turn (``map``), or by a pool's threads. No bit depends on it.
Walk = Callable[..., Iterable[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A matrix ``(N, K)`` taken apart, nothing packed yet."""

    codes: Codes  #: (N, K); of floats stored as they are, the floats
    scales: Stored | None = None  #: (N, groups), or (1, 1) for one scale per tensor
    mins: Stored | None = None
    extra: Mapping[str, Stored] = field(default_factory=dict)
    #: ``tensor_scale`` (1, 1) f32, ``row_scales`` (N, 1) f32, ``shifts`` (N, pairs) uint8, ``codebook`` (levels,) f32,
    #: ``super_scales`` and ``super_mins`` (N, super-blocks) f16


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What every block needs to know."""

    format: Format
    rule: Rule
    rounding: Rounding
    rng: Uniform
    code: Code | None = None  #: a learned codebook
    walk: Walk = map


def encode_matrix(
    w: F32,
    format: Format,
    *,
    rule: Rule | None = None,
    rounding: Rounding | None = None,
    seed: int = 0,
    walk: Walk = map,
) -> Encoded:
    """Encode ``w (N, K)`` float32. ``rule`` and ``rounding`` default to the format's own."""
    chosen = format.rounding if rounding is None else rounding
    if chosen not in ROUNDINGS:
        raise UsageError(f"'{chosen}' is no rounding.", hint=f"use one of {', '.join(ROUNDINGS)}")
    rng = np.random.default_rng(seed) if chosen == "stochastic" else None
    if rng is not None:
        walk = map  # random numbers are drawn in the order of the weights
    if format.scale is None:
        return _as_they_are(w, format, chosen, rng, walk)
    job = Job(format, _rule(format, rule), chosen, rng, walk=walk)
    if format.element.name.startswith("kmeans"):
        return _learned(w, job)
    if format.second == "super":
        return Encoded(*superblocks.encode(w, format, job.rounding, job.rng))
    return _scaled(w, job)


def _rule(format: Format, rule: Rule | None) -> Rule:
    found = format.rule if rule is None else rule
    if found not in RULES and found not in ("gguf", "super"):
        raise UsageError(f"'{found}' is no scale rule.", hint=f"use one of {', '.join(RULES)}")
    if found == "gguf" and format.rule != "gguf":
        raise UsageError(f"{format.name} is no format of llama.cpp.", hint=f"use one of {', '.join(RULES)}")
    if (found == "super") != (format.second == "super"):
        raise UsageError(f"{format.name}: '{found}' is no rule for its scales.", hint="leave the rule out")
    if format.has_min and format.second != "super" and found not in ("absmax", "mse", "gguf"):
        raise UsageError(f"{format.name}: '{found}' chooses no min.", hint="use absmax or mse")
    return found


def _as_they_are(w: F32, format: Format, rounding: Rounding, rng: Uniform, walk: Walk) -> Encoded:
    element = format.element
    if element.name == "f32":
        return Encoded(w)
    floats = element.kind == "float"
    stored = np.empty(w.shape, DTYPES[element.name] if floats else code_type(element.bits))
    flat, out = w.reshape(-1), stored.reshape(-1)

    def work(at: int) -> None:
        piece = slice(at, at + _CHUNK)
        x = flat[piece]
        out[piece] = store_floats(x, element.name, rounding, rng) if floats else to_codes(element, x, rounding, rng)

    list(walk(work, range(0, flat.size, _CHUNK)))
    return Encoded(stored)


def _learned(w: F32, job: Job) -> Encoded:
    """Scales first, then a codebook for what they leave, then codes."""
    bits = job.format.element.bits
    levels = kmeans.learn(*kmeans.sample(w, job.format.group(w.shape[1]), whole=job.format.block == "tensor"), bits)
    code = listed(bits, levels.astype(np.float64))
    encoded = _scaled(w, replace(job, code=code))
    return Encoded(encoded.codes, encoded.scales, None, {**encoded.extra, "codebook": levels})


def _scaled(w: F32, job: Job) -> Encoded:
    format, (rows, cols) = job.format, w.shape
    assert format.scale is not None
    unit = unit_of(w, format)
    if format.block == "tensor":
        return _one_block(w, job, unit)
    group, groups = format.group(cols), format.groups(cols)
    whole = cols // group * group  # where a ragged last group begins
    codes = np.empty(w.shape, code_type(format.element.bits))
    scales, mins = (np.empty((rows, groups), DTYPES[format.scale]) for _ in range(2))
    shifts = np.empty((rows, -(-cols // 2)), np.uint8) if format.recipe is not None and format.recipe.pairs else None
    step = max(1, _CHUNK // cols)

    def work(row: int) -> None:
        at = slice(row, min(row + step, rows))
        for begin, end, size in ((0, whole, group), (whole, cols, cols - whole)):
            if begin < end:
                blocks = w[at, begin:end].reshape(at.stop - at.start, -1, size)
                place = at, slice(begin // group, -(-end // group))
                found = _encode_blocks(blocks, job, None if unit is None else unit[at] if len(unit) > 1 else unit)
                codes[at, begin:end] = found.codes.reshape(-1, end - begin)
                scales[place] = found.scales
                if found.mins is not None:
                    mins[place] = found.mins
                if shifts is not None:
                    shifts[at, begin // 2 : -(-end // 2)] = found.extra["shifts"].reshape(at.stop - at.start, -1)

    list(job.walk(work, range(0, rows, step)))
    extra = {"shifts": shifts} if shifts is not None else {}
    if unit is not None:
        extra["tensor_scale" if format.second == "tensor" else "row_scales"] = _marked(w, unit, format)
    return Encoded(codes, scales, mins if format.has_min else None, extra)


def _encode_blocks(blocks: F32, job: Job, unit: F32 | None) -> Encoded:
    """Blocks ``(R, g, G)`` → codes of that shape, scales and mins ``(R, g)``."""
    assert job.format.scale is not None
    bad = _bad(blocks)
    if bad is not None:
        blocks = np.where(bad[..., None], np.float32(0), blocks)
    if job.rule == "gguf":
        codes, scales, mins = gguf_rules.encode(blocks, job.format)
        found = Encoded(codes, scales, mins)
    elif job.format.has_min:
        found = Encoded(*choose_affine(blocks, job.format, job.rule, job.rounding, job.rng))
    else:
        grid = Grid(job.format.scale, unit)
        scales = choose(blocks, job.format, grid, job.rule)
        found = _codes_of(blocks, scales, grid.value(scales), job)
    if bad is None or found.scales is None:
        return found
    mins = None if found.mins is None else _with_nan(found.mins, bad, job.format.scale)
    return Encoded(found.codes, _with_nan(found.scales, bad, job.format.scale), mins, found.extra)


def _codes_of(blocks: F32, scales: Stored, values: F32, job: Job) -> Encoded:
    by = divisor(values)[..., None]
    with np.errstate(over="ignore", under="ignore"):
        if job.format.recipe is not None and job.format.recipe.pairs:
            shifts = pairs.shifts(blocks, values)
            quotients = pairs.divide(blocks, by, shifts)
            return Encoded(
                to_codes(job.format.element, quotients, job.rounding, job.rng), scales, None, {"shifts": shifts}
            )
        return Encoded(to_codes(job.format.element, blocks / by, job.rounding, job.rng, code=job.code), scales)


def _one_block(w: F32, job: Job, unit: F32 | None) -> Encoded:
    """One scale for the tensor: chosen from all of it, then codes piece by piece."""
    format = job.format
    assert format.scale is not None
    if not np.isfinite(w).all():
        nan = from_f32(np.full((1, 1), np.nan, np.float32), format.scale)
        codes = np.zeros(w.shape, code_type(format.element.bits))
        return Encoded(codes, nan, nan if format.has_min else None, {} if unit is None else {"tensor_scale": unit})
    whole = w.reshape(1, 1, -1)
    if format.has_min:
        found = choose_affine(whole, format, job.rule, job.rounding, job.rng)
        return Encoded(found[0].reshape(w.shape), found[1], found[2])
    grid = Grid(format.scale, unit)
    scales = choose(whole, format, grid, job.rule)
    codes = np.empty(w.size, code_type(format.element.bits))

    def work(at: int) -> None:
        piece = whole[..., at : at + _CHUNK]
        codes[at : at + _CHUNK] = _codes_of(piece, scales, grid.value(scales), job).codes[0, 0]

    list(job.walk(work, range(0, w.size, _CHUNK)))
    return Encoded(codes.reshape(w.shape), scales, None, {} if unit is None else {"tensor_scale": unit})


def _bad(blocks: F32) -> NDArray[np.bool_] | None:
    """Blocks with a NaN or an infinity, or None when all are clean."""
    bad = ~np.isfinite(peaks(blocks))
    return bad if bad.any() else None


def _with_nan(stored: Stored, bad: NDArray[np.bool_], kind: str) -> Stored:
    nan = (
        exponent_code(np.zeros(1), np.array([np.nan]))
        if kind == "e8m0"
        else from_f32(np.array([np.nan], np.float32), kind)
    )
    return np.where(bad, nan, stored).astype(stored.dtype)


def _marked(w: F32, unit: F32, format: Format) -> F32:
    """Row scales with NaN for rows that hold one: their integer block scales have no code for it."""
    if format.second != "row":
        return unit
    return np.where(np.isfinite(w).all(axis=1, keepdims=True), unit, np.float32(np.nan))
