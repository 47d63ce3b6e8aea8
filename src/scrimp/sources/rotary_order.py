"""The order of the rows of q and k: rotation turns pairs of outputs, and which two are a pair is a convention."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def halves_from_pairs(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """Rows ``(N, …)`` with pairs ``(2i, 2i+1)`` in each head → pairs ``(i, i + D/2)``, as Hugging Face has them.

    >>> import numpy as np
    >>> halves_from_pairs(np.array([0, 1, 2, 3, 10, 11, 12, 13])[:, None], heads=2)[:, 0].tolist()
    [0, 2, 1, 3, 10, 12, 11, 13]
    """
    count = rows.shape[0]
    return rows.reshape(heads, count // heads // 2, 2, -1).swapaxes(1, 2).reshape(count, -1)
