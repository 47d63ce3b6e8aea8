"""A small set of pictures made for tests, in the files that MNIST has: classes are places of a bright patch."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

RECIPE = """
[data]
set = "mnist"
size = "8x8"

[model]
name = "mlp"
hidden = [24, 16]

[weights]
format = "ternary:row"

[schedule]
epochs = 6
batch = 32
rate = 1e-2
float_epochs = 1
"""


def write(folder: Path, train: int = 1200, test: int = 400, seed: int = 0) -> Path:
    """The directory of the data."""
    (folder / "mnist").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name, count in (("train", train), ("t10k", test)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        images = rng.integers(0, 90, (count, 28, 28))
        for at, label in enumerate(labels):
            row, column = 2 + 12 * (label // 4) - label // 4 * 2, 1 + 7 * (label % 4)
            images[at, row : row + 6, column : column + 5] += 120
        images = images.astype(np.uint8)
        (folder / f"mnist/{name}-images-idx3-ubyte").write_bytes(
            bytes((0, 0, 8, 3)) + struct.pack(">3I", *images.shape) + images.tobytes()
        )
        (folder / f"mnist/{name}-labels-idx1-ubyte").write_bytes(
            bytes((0, 0, 8, 1)) + struct.pack(">I", count) + labels.tobytes()
        )
    return folder
