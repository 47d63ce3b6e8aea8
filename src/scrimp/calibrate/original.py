"""The network as its source has it, measured block by block: no run of it that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scrimp.calibrate.kept import Kept
from scrimp.calibrate.split import Block
from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.walk import Walk
from scrimp.tensors import F32, QTensor


class Original:
    """Statistics of a block whose prefix is the source's own.

    A block whose Statistics are ``kept`` does not run, until a later one is wanted that is not kept: then ``read``
    brings its weights once more.
    """

    def __init__(
        self,
        walk: Walk,
        blocks: Sequence[Block],
        read: Callable[[str], QTensor],
        vectors: Mapping[str, F32],
        kept: Kept | None = None,
    ) -> None:
        self._walk, self._blocks, self._read, self._vectors, self._kept = walk, blocks, read, vectors, kept
        self._passed = 0  # so many blocks have moved the states

    def statistics(
        self, at: int, matrices: Mapping[str, QTensor], tick: Callable[[], None] = lambda: None
    ) -> dict[str, Statistics]:
        """Of what the matrices of block ``at`` multiply with; ``matrices`` are those it runs with."""
        block = self._blocks[at]
        found = None if self._kept is None else self._kept.get(at, block)
        if found is not None:
            for _ in range(len(self._walk.windows)):
                tick()
            return found
        for behind in self._blocks[self._passed : at]:
            weights = {name: self._read(name) for name in behind.runs}
            self._walk.run(behind, weights, self._vectors, collect=False, move=True)
        found = self._walk.run(block, matrices, self._vectors, collect=True, move=True, tick=tick)
        self._passed = at + 1
        if self._kept is not None:
            self._kept.put(at, block, found)
        return found
