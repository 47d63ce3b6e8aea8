"""Where weights lie, and how their scales do."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.formats.packing import TILE_ROWS


def weight_array(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """As ``np.empty``, in memory that weights are read from at full speed: huge pages, 64-byte boundaries."""
    return _core.weight_bytes(prod(shape) * dtype.itemsize).view(dtype).reshape(shape)


def by_tile(values: NDArray[Any]) -> NDArray[Any]:
    """Scales ``(N, groups)`` → ``(tiles, groups, 16)``, rows that are missing 0."""
    padded = np.pad(values, ((0, -values.shape[0] % TILE_ROWS), (0, 0)))
    tiles = padded.reshape(-1, TILE_ROWS, values.shape[1]).transpose(0, 2, 1)
    stored = weight_array(tiles.shape, values.dtype)
    stored[...] = tiles
    return stored
