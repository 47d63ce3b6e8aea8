"""Codes to tiles and back, in NumPy: the truth that the compiled packing and every kernel are tested against.

A tile interleaves 16 rows. A plane of ``p`` bits is a sequence of 64-byte vectors; byte ``4r + j`` of a vector belongs
to row ``r``, and its bits ``[p*i, p*i + p)`` hold the code of input ``k0 + 4*i + j``::

    vector (p = 4, inputs k0 … k0+7)      byte 4r    4r+1   4r+2   4r+3
    row r, low nibble  (i = 0)                 k0     k0+1   k0+2   k0+3
           high nibble (i = 1)                 k0+4   k0+5   k0+6   k0+7

Trits: byte = t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4 with trit ``ti`` of input ``k0 + 4*i + j``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import code_type
from scrimp.formats.element import Element

TILE_ROWS = 16
VECTOR_BYTES = 64

Codes = NDArray[np.uint8]


def pad_to_tiles(matrix: NDArray[np.generic], multiple: int) -> NDArray[np.generic]:
    """Zero rows up to a multiple of 16 and zero columns up to ``multiple``."""
    rows, cols = matrix.shape
    return np.pad(matrix, ((0, -rows % TILE_ROWS), (0, -cols % multiple)))


def pack_codes(codes: NDArray[Any], element: Element) -> tuple[Codes, ...]:
    """Codes ``(N, K)`` uint8 or uint16 → one plane per field, each ``(tiles, vectors, 64)`` uint8."""
    planes, shift = [], 0
    for width, span in zip(element.planes, element.spans(), strict=True):
        field = (codes >> shift) & (2**width - 1) if width else codes
        planes.append(_pack_plane(field.astype(np.uint8), width, span))
        shift += width
    return tuple(planes)


def unpack_codes(planes: tuple[Codes, ...], element: Element, shape: tuple[int, int]) -> NDArray[Any]:
    """The inverse: planes → codes ``(N, K)`` uint8, or uint16 above 8 bits."""
    codes, shift = np.zeros(shape, code_type(element.bits)), 0
    for width, span, plane in zip(element.planes, element.spans(), planes, strict=True):
        codes |= _unpack_plane(plane, width, span)[: shape[0], : shape[1]].astype(codes.dtype) << shift
        shift += width
    return codes


def pack_floats(values: NDArray[np.generic], out: Codes | None = None) -> Codes:
    """Floats ``(N, K)`` of 4 or 2 bytes → ``(tiles, vectors, 64)``: row r owns bytes 4r … 4r+3, one or two inputs."""
    span = 4 // values.dtype.itemsize
    words = np.ascontiguousarray(pad_to_tiles(values, span)).view(np.uint32)
    tiles = words.reshape(words.shape[0] // TILE_ROWS, TILE_ROWS, -1)
    if out is None:
        out = np.empty((tiles.shape[0], tiles.shape[2], VECTOR_BYTES), np.uint8)
    out.view(np.uint32)[...] = tiles.transpose(0, 2, 1)
    return out


def unpack_floats(plane: Codes, dtype: np.dtype[np.generic], shape: tuple[int, int]) -> NDArray[np.generic]:
    """The inverse of :func:`pack_floats`."""
    span = 4 // dtype.itemsize
    tiles = plane.view(dtype).reshape(plane.shape[0], -1, TILE_ROWS, span)
    return tiles.transpose(0, 2, 1, 3).reshape(plane.shape[0] * TILE_ROWS, -1)[: shape[0], : shape[1]]


def _pack_plane(field: Codes, width: int, span: int) -> Codes:
    padded = pad_to_tiles(field, span)
    # (tile, row, vector, i, j) → (tile, vector, row, j, i): the i codes that share a byte come last
    fields = padded.reshape(-1, TILE_ROWS, padded.shape[1] // span, span // 4, 4).transpose(0, 2, 1, 4, 3)
    place = 3 ** np.arange(5) if width == 0 else 1 << (width * np.arange(span // 4))
    packed: Codes = (fields.astype(np.int64) * place).sum(axis=-1).astype(np.uint8)
    return packed.reshape(packed.shape[0], packed.shape[1], VECTOR_BYTES)


def _unpack_plane(plane: Codes, width: int, span: int) -> Codes:
    tiles, vectors, _ = plane.shape
    packed = plane.reshape(tiles, vectors, TILE_ROWS, 4, 1).astype(np.int64)
    place = 3 ** np.arange(5) if width == 0 else 1 << (width * np.arange(span // 4))
    fields = packed // place % (3 if width == 0 else 2**width)
    return fields.transpose(0, 2, 1, 4, 3).reshape(tiles * TILE_ROWS, vectors * span).astype(np.uint8)
