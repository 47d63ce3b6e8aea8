"""Round to nearest: every weight becomes the nearest level of its block; only the block's scale is chosen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.formats.catalogue import Rule
from scrimp.formats.scale_types import LARGEST
from scrimp.formats.search import SEARCHES
from scrimp.quantize import search, ternary
from scrimp.quantize.blocks import Blocks, group_blocks, row_chunks
from scrimp.quantize.pool import pool
from scrimp.sources.checks import not_finite
from scrimp.tensors import DTYPES, F32, U8, QTensor, Stored, encode_weight, from_codes, from_f32, from_floats, to_f32

Scale = Literal["mse", "absmax"]


def quantize(weight: F32, format: Format, *, scale: Scale = "mse", threads: int | None = None) -> QTensor:
    """Round ``weight`` to ``format``::

        ints           code = clip(rint(w / scale)) + 2^(b-1)     scale: least squared error, or max|w| / (2^(b-1) - 1)
        ints with min  code = clip(rint((w - min) / scale))       both: least squared error, or the block's ends
        ternary        code = clip(rint(w / scale), -1, 1) + 1    scale: least squared error, or mean|w|
        binary         code = w >= 0                              scale: mean|w|, which is both
        floats         the nearest value of the type, clamped to its finite range
        others         as formats.encode does; scale: least squared error, or the rule that the format defines

    Shapes
        weight (N, K); the last block of a row may be ragged
    Error
        With ``scale="absmax"`` and integers ``|w - ŵ| <= scale/2``, because scales are rounded up, mins down, and codes
        computed with both as stored. (Products and sums in ``ŵ`` are float32: exact for symmetric formats with f16 and
        bf16 scales; else one rounding of ``|scale·code|`` and of ``|ŵ|`` comes on top.)
        Exception: a block whose scale or min would exceed the largest finite value of its type is clipped there.
    Edge cases
        An all-zero block has scale 0; so has one of equal weights that the min's type can hold, in formats with mins.
        NaN and infinity are Refused, and so are weights that the format can only store as one of those.
    Determinism
        Blocks don't influence each other, so threads, chunks and the order of rows change no bit.

    >>> from scrimp.formats import parse
    >>> q = quantize(np.array([[0.0, -1.0, 0.6, 0.3]], np.float32), parse("int4:g32@f32"), scale="absmax")
    >>> (q.codes() - 8.0).tolist()
    [[0.0, -7.0, 4.0, 2.0]]
    """
    if not np.isfinite(weight).all():
        bad = int(weight.size - np.isfinite(weight).sum())
        raise Refused(f"{bad:,} of {weight.size:,} weights are NaN or infinite.", hint="the source is damaged")
    weight = np.ascontiguousarray(weight, np.float32)
    own = format.recipe is not None and scale == "absmax"
    if own or not format.runs or format.element.kind == "table" or format.scale == "e8m0":
        return _by_the_format(weight, format, scale, pool(threads))
    if format.scale is None:
        kind = format.element.name
        return from_floats(format, from_f32(np.clip(weight, -LARGEST[kind], LARGEST[kind]), kind))
    quantize_blocks = _one_block if format.block == "tensor" else _many_blocks
    return quantize_blocks(weight, format, scale, pool(threads))


def rule_of(format: Format, scale: Scale) -> Rule | None:
    """The scale rule of a format that ``formats.encode`` quantizes; None stands for the format's own.

    The search for the least squared error knows no shifts of pairs, no scales of scales and no codebook that is yet to
    be learned; with 16 bits it would take minutes to gain nothing.
    """
    pairs = format.recipe is not None and format.recipe.pairs
    kmeans, two_levels = format.element.name.startswith("kmeans"), format.second == "super"
    fine = format.element.bits > 8
    own = format.scale is None or pairs or kmeans or two_levels or fine or format.rule in SEARCHES
    return "mse" if scale == "mse" and not own else None


def _by_the_format(weight: F32, format: Format, scale: Scale, workers: ThreadPoolExecutor) -> QTensor:
    tensor = encode_weight(weight, format, rule=rule_of(format, scale), walk=workers.map)
    if bad := sum(not_finite(tensor).values()):
        raise Refused(
            f"{bad:,} numbers of {weight.size:,} become NaN or infinite in {format.name}.",
            hint="give it a scale, like :row, or take a format that saturates",
        )
    return tensor


def _many_blocks(weight: F32, format: Format, scale: Scale, workers: ThreadPoolExecutor) -> QTensor:
    rows, cols = weight.shape
    assert format.scale is not None
    group, groups = format.group(cols), format.groups(cols)
    codes = np.empty(weight.shape, np.uint8)
    scales, mins = (np.empty((rows, groups), DTYPES[format.scale]) for _ in range(2))
    ragged = cols // group * group  # where the ragged last group begins

    def work(chunk: slice) -> None:
        for begin, end, size in ((0, ragged, group), (ragged, cols, cols - ragged)):
            if begin == end:
                continue
            blocks = group_blocks(weight[chunk, begin:end], size)
            chosen, low = choose(blocks, format, scale)
            place = chunk, slice(begin // group, -(-end // group))
            scales[place] = chosen.reshape(scales[place].shape)
            if low is not None:
                mins[place] = low.reshape(mins[place].shape)
            codes[chunk, begin:end] = encode(blocks.pieces[0], format, chosen, low).T.reshape(-1, end - begin)

    list(workers.map(work, row_chunks(rows, cols)))
    return from_codes(format, codes, scales, mins if format.has_min else None)


def _one_block(weight: F32, format: Format, scale: Scale, workers: ThreadPoolExecutor) -> QTensor:
    chunks = row_chunks(*weight.shape)
    chosen, low = choose(Blocks(tuple(weight[chunk] for chunk in chunks), whole=True, map=workers.map), format, scale)
    codes = np.empty(weight.shape, np.uint8)

    def work(chunk: slice) -> None:
        codes[chunk] = encode(weight[chunk], format, chosen, low)

    list(workers.map(work, chunks))
    return from_codes(format, codes, chosen[:, None], None if low is None else low[:, None])


def choose(blocks: Blocks, format: Format, scale: Scale) -> tuple[Stored, Stored | None]:
    """The scale of every block ``(M,)``, and its min where the format has one, as stored."""
    element, kind = format.element, format.scale
    assert kind is not None
    with np.errstate(all="ignore"):
        if element.kind == "binary":
            return ternary.absmean(blocks, kind), None
        if element.kind == "ternary":
            return (ternary.best_ternary if scale == "mse" else ternary.absmean)(blocks, kind), None
        if format.has_min:
            return (search.best_asymmetric if scale == "mse" else search.plain_asymmetric)(blocks, element.bits, kind)
        return (search.best_symmetric if scale == "mse" else search.plain_symmetric)(blocks, element.bits, kind), None


def encode(w: F32, format: Format, scales: Stored, mins: Stored | None = None) -> U8:
    """The nearest level of every weight ``(G, M)``, with the scales and mins ``(M,)`` of its column as stored."""
    element, kind = format.element, format.scale
    assert kind is not None
    if element.kind == "binary":
        return (w >= 0).view(np.uint8)
    # Division, not multiplication by an inverse: only then do weights half-way between levels stay within scale/2.
    with np.errstate(over="ignore"):
        steps = (w if mins is None else w - to_f32(mins, kind)) / search.divisor(to_f32(scales, kind))
    np.rint(steps, out=steps)
    zero = 0 if mins is not None else element.zero
    np.clip(steps, -zero, element.levels - 1 - zero, out=steps)
    steps += zero
    return steps.astype(np.uint8)
