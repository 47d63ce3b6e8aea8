"""Ten digits drawn with a broad pen along straight lines, 16 × 16 like the pictures the example was trained on.

``python tests/integer/drawn_digits.py`` writes the example's logits anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "mnist-patches-16x16"
RECORDED = Path(__file__).with_name("example_logits.csv")
#: Lines from point to point, (row, column) in a square of 16.
LINES = {
    0: [(3, 7), (4, 5), (8, 4), (11, 5), (12, 8), (11, 10), (8, 11), (4, 10), (3, 7)],
    1: [(3, 9), (12, 7)],
    2: [(4, 5), (3, 8), (5, 10), (8, 8), (12, 4), (12, 11)],
    3: [(3, 5), (3, 9), (5, 10), (7, 7), (9, 10), (11, 9), (12, 5)],
    4: [(3, 5), (8, 4), (8, 11), (3, 10), (12, 9)],
    5: [(3, 10), (3, 6), (7, 5), (7, 9), (10, 10), (12, 8), (12, 5)],
    6: [(3, 9), (7, 5), (11, 5), (12, 8), (10, 10), (8, 8), (9, 5)],
    7: [(4, 4), (3, 11), (8, 8), (12, 7)],
    8: [(7, 8), (4, 5), (3, 8), (5, 10), (10, 5), (12, 7), (11, 10), (7, 8)],
    9: [(6, 10), (7, 6), (4, 5), (3, 8), (5, 10), (12, 9)],
}


def drawn() -> np.ndarray:
    """(10, 16, 16, 1) bytes: full ink within 0.7 points of a line, none beyond 1.5."""
    points = np.stack(np.meshgrid(np.arange(16.0), np.arange(16.0), indexing="ij"), axis=-1)
    pictures = []
    for line in LINES.values():
        near = np.full((16, 16), np.inf)
        for start, end in zip(np.array(line[:-1], float), np.array(line[1:], float), strict=True):
            along = end - start
            share = np.clip((points - start) @ along / (along @ along), 0, 1)
            near = np.minimum(near, np.linalg.norm(points - start - share[..., None] * along, axis=-1))
        pictures.append(np.clip((1.5 - near) / 0.8, 0, 1) * 255)
    return np.rint(pictures).astype(np.uint8)[..., None]


if __name__ == "__main__":
    from scrimp.integer.lower import lower
    from scrimp.integer.reference import run
    from scrimp.store.net import open_net

    found = run(lower(*open_net(EXAMPLE)), drawn())
    np.savetxt(RECORDED, found, fmt="%d", delimiter=",")
    print(f"drawn 0 … 9, answered {' '.join(map(str, found.argmax(axis=1)))}")
