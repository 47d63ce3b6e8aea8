"""Pictures: bytes and labels, and the one rule that changes their size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
#: Numbers of float64 that are calculated together.
_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """``images (n, height, width, channels)``, ``labels (n,)``, and the names of the classes."""

    images: U8
    labels: U8
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> Pictures:
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def resized(self, height: int, width: int) -> Pictures:
        return replace(self, images=resize(self.images, height, width))


def resize(images: U8, height: int, width: int) -> U8:
    """Every new pixel is the mean of the rectangle it covers, halves rounded up: in integers, the same everywhere.

    ``(sum over rows and columns of overlap · overlap · byte + H W / 2) // (H W)``, H × W the old size, the overlap of
    an old row with a new one counted in parts of which H make a new row.

    Shapes
        (n, H, W, channels) → (n, height, width, channels); larger sizes work too

    >>> resize(np.array([[[[0], [3], [9]]]], np.uint8), 1, 2).ravel().tolist()  # (0·2 + 3) / 3, (3 + 9·2) / 3
    [1, 7]
    """
    n, rows, columns, channels = images.shape
    if (rows, columns) == (height, width):
        return images
    down, across, area = overlaps(rows, height), overlaps(columns, width), rows * columns
    made = np.empty((n, height, width, channels), np.uint8)
    step = max(1, _AT_ONCE // (channels * max(rows * columns, height * width)))
    for at in range(0, n, step):
        part = images[at : at + step].transpose(0, 3, 1, 2).astype(np.float64)  # exact: below 2^53
        sums = (down @ part @ across.T).astype(np.int64)
        made[at : at + step] = ((sums + area // 2) // area).transpose(0, 2, 3, 1)
    return made


def overlaps(old: int, new: int) -> NDArray[np.float64]:
    """``(new, old)``: how much of each old line lies in each new one, in parts of which ``old`` make a new line."""
    begin = np.maximum(np.arange(new)[:, None] * old, np.arange(old)[None, :] * new)
    end = np.minimum((np.arange(new)[:, None] + 1) * old, (np.arange(old)[None, :] + 1) * new)
    return np.asarray(np.maximum(0, end - begin), np.float64)
