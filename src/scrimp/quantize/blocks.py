"""Blocks: the weights that share one scale, laid out so that NumPy works on many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.formats.code import F64
from scrimp.tensors import F32

#: Weights a thread works on at a time: 512 kB of float32, which with its scratch stays in cache.
PIECE = 1 << 17
#: The same for work that makes many arrays as large as its weights: beyond 256 kB each is fresh pages from the system,
#: and clearing them takes longer than what is done with them.
FRESH = 1 << 16

#: (weights (G, M), scratch of the same shape) → (k, M): k sums over each of the M columns.
Sums = Callable[[F32, F32], NDArray[np.floating[Any]]]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """M blocks of G weights as one array ``(G, M)``; or one block (M = 1) that is every weight of several ``pieces``.

    Sums over a block run down a column, so all columns advance together at the width of the machine, and a block's
    result depends on nothing but its own weights.
    """

    pieces: tuple[F32, ...]
    whole: bool = False  #: all pieces together are one block
    map: Callable[..., Iterable[Any]] = map  #: how pieces are walked: in turn, or by a pool's threads

    @property
    def size(self) -> int:
        """Weights in a block, G."""
        return sum(piece.size for piece in self.pieces) if self.whole else self.pieces[0].shape[0]

    def totals(self, sums: Sums) -> F64:
        """``sums`` of every block ``(k, M)``, accumulated in float64 where a block spans pieces."""

        def total(piece: F32) -> F64:
            # Blocks of zeros divide by zero, tiny ones overflow: such candidates compare as worse and are not taken.
            with np.errstate(all="ignore"):  # set here, since a pool's threads inherit nothing
                found = sums(piece, np.empty_like(piece))
            return found.sum(axis=1, keepdims=True, dtype=np.float64) if self.whole else found.astype(np.float64)

        return np.sum(list(self.map(total, self.pieces)), axis=0)  # type: ignore[no-any-return]

    def least(self) -> F64:
        """The smallest weight of every block ``(M,)``."""
        if self.whole:
            return np.array([min(piece.min() for piece in self.pieces)], np.float64)
        return np.asarray(self.pieces[0].min(axis=0), np.float64)

    def greatest(self) -> F64:
        """The largest weight of every block ``(M,)``."""
        if self.whole:
            return np.array([max(piece.max() for piece in self.pieces)], np.float64)
        return np.asarray(self.pieces[0].max(axis=0), np.float64)

    def magnitudes(self) -> F32:
        """``|w|`` block by block: ``(M, G)``."""
        together = np.concatenate([p.ravel() for p in self.pieces])[None] if self.whole else self.pieces[0].T
        return np.abs(together, order="C", dtype=np.float32)


def group_blocks(weight: F32, group: int) -> Blocks:
    """Every ``group`` consecutive inputs of a row of ``weight (R, n·group)`` as a column; row by row."""
    return Blocks((np.ascontiguousarray(weight.reshape(-1, group).T),))


def row_chunks(rows: int, cols: int, piece: int = PIECE) -> list[slice]:
    """Rows in chunks of about ``piece`` weights; two rows or more each wherever there are two."""
    count = max(1, rows // max(2, piece // cols))
    edges = [rows * i // count for i in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(edges)]
