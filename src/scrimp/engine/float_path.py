"""What the kernels don't multiply with as it is stored: decoded to bf16 or float32 or, of a table, in 8 bits; and said
so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import numpy as np

from scrimp.engine.engine import core_matrix
from scrimp.formats import Format, parse
from scrimp.formats.codebooks import Learned, in_steps
from scrimp.formats.packing import TILE_ROWS
from scrimp.sizes import format_bytes
from scrimp.tensors import DTYPES, F32, QTensor, from_f32, from_floats, stored_bytes, to_f32

_F32, _BF16 = parse("f32"), parse("bf16")
_WEIGHTS_AT_ONCE = 1 << 18


def row_reader(tensor: QTensor) -> Callable[[int, int], F32]:
    """``(begin, end) → weights of those rows``: by the core where it knows the format, else by the format's own rule.

    Both give what ``tensor.dequantize()`` gives.
    """
    if tensor.format.runs:
        return core_matrix(tensor).decode_rows

    def read(begin: int, end: int) -> F32:
        first = begin // TILE_ROWS
        return tensor.tiles(first, -(-end // TILE_ROWS)).dequantize()[begin - first * TILE_ROWS :][: end - begin]

    return read


def row_pieces(tensor: QTensor) -> list[slice]:
    """The rows in pieces that a thread decodes at once; of whole tiles, so that nothing is decoded twice."""
    rows, cols = tensor.shape
    step = max(1, _WEIGHTS_AT_ONCE // cols // TILE_ROWS) * TILE_ROWS
    return [slice(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


@cache
def run_format(format: Format) -> Format:
    """What a tensor of ``format`` is multiplied in: itself, else bf16 where that holds every weight, else float32.

    Bf16 holds numbers of at most 8 significant bits, alone or times powers of two: those of FP8, FP6, MX and posits of
    8 bits. (Below 2^-126 it has fewer, where the kernels may take a weight for zero.)

    >>> [run_format(parse(name)).name for name in ("int4:g64", "mxfp8_e4m3", "fp8_e5m2", "nvfp4", "tf32")]
    ['int4:g64', 'bf16', 'bf16', 'f32', 'f32']
    """
    if format.runs:
        return format
    alone = format.scale in (None, "e8m0") and format.second is None and not format.has_min
    if not alone or format.element.kind == "float":
        return _F32
    numbers = format.element.tabulated()
    return _BF16 if np.array_equal(to_f32(from_f32(numbers, "bf16"), "bf16"), numbers, equal_nan=True) else _F32


def as_run(tensor: QTensor) -> QTensor:
    """The tensor in the format that it is multiplied in."""
    format = run_format(tensor.format)
    if format == tensor.format:
        return tensor
    weight, read = np.empty(tensor.shape, DTYPES[format.element.name]), row_reader(tensor)
    for piece in row_pieces(tensor):
        weight[piece] = from_f32(read(piece.start, piece.stop), format.element.name)
    return from_floats(format, weight)


def bytes_as_run(format: Format, shape: tuple[int, int]) -> int:
    """Bytes of a matrix in memory when it runs, which are those that decoding a token reads."""
    return stored_bytes(run_format(format), shape)


def decoded_notes(matrices: Iterable[tuple[Format, tuple[int, int]]]) -> list[str]:
    """A line for each format that does not run as it is stored, or not with its own numbers."""
    found: dict[Format, list[int]] = {}
    for format, shape in matrices:
        if not format.runs or _rounded(format) is not None:
            found.setdefault(format, []).append(bytes_as_run(format, shape))
    return [
        f"{format.name} {_how(format)}: {len(sizes)} {'matrix' if len(sizes) == 1 else 'matrices'}, "
        f"{format_bytes(sum(sizes))} in memory"
        for format, sizes in found.items()
    ]


def _how(format: Format) -> str:
    if not format.runs:
        return f"is decoded to {run_format(format).name} to run"
    error = _rounded(format)
    return "has its levels in 8 bits where activations have" + (
        f" (off by up to {error:.1%} of the largest)" if error else ""
    )


def _rounded(format: Format) -> float | None:
    """How far 8 bits are from the levels of a table, as a share of the largest; 0 where each tensor has its own."""
    element = format.element
    if not format.runs or element.kind != "table":
        return None
    if isinstance(element.spec, Learned):
        return 0.0
    return in_steps(element.tabulated()).error(element.tabulated()) or None
