"""What the kernels don't multiply with as it is stored: decoded to float32 or, of a table, in 8 bits; and said so."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from scrimp.engine.engine import core_matrix
from scrimp.formats import Format, parse
from scrimp.formats.codebooks import Learned, in_steps
from scrimp.formats.packing import TILE_ROWS
from scrimp.sizes import format_bytes
from scrimp.tensors import F32, QTensor, from_floats, stored_bytes

_F32 = parse("f32")
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


def as_run(tensor: QTensor) -> QTensor:
    """The tensor in a format that the kernels multiply with: itself, or its weights in float32."""
    if tensor.format.runs:
        return tensor
    weight, read = np.empty(tensor.shape, np.float32), row_reader(tensor)
    for piece in row_pieces(tensor):
        weight[piece] = read(piece.start, piece.stop)
    return from_floats(_F32, weight)


def bytes_as_run(format: Format, shape: tuple[int, int]) -> int:
    """Bytes of a matrix in memory when it runs, which are those that decoding a token reads."""
    return stored_bytes(format if format.runs else _F32, shape)


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
        return "is decoded to f32 to run"
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
