"""A block measured on two prefixes at once: the inputs that the quantized one makes, and how far the original's are.

A second set of states goes through the network as its source has it. Between the two, window by window, cross moments
are added up beside the moments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from scrimp import _core
from scrimp.calibrate.accumulate import TOKENS_AT_ONCE, Accumulator
from scrimp.calibrate.split import Block
from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.walk import Walk, reader
from scrimp.engine import default_threads, pick_isa
from scrimp.tensors import F32, QTensor


class CrossMoments:
    """Adds up ``Σ a bᵀ`` of rows a (N,) and b (K,) of the same tokens, in one order.

    Error
        Relative to ``Σ |a_i b_j|``: ``TOKENS_AT_ONCE · 2^-24`` from the float32 sums; the float64 ones add nothing.
    """

    def __init__(self, rows: int, cols: int, threads: int | None = None) -> None:
        self.moments = np.zeros((rows, cols), np.float64)
        self._threads, self._isa = threads or default_threads(), pick_isa()

    def add(self, a: F32, b: F32) -> None:
        """Rows ``(T, N)`` and ``(T, K)``."""
        for at in range(0, len(a), TOKENS_AT_ONCE):
            some = slice(at, at + TOKENS_AT_ONCE)
            _core.add_cross_moments(a[some], b[some], self.moments, self._threads, self._isa)


def measure(
    original: Walk,
    quantized: Walk,
    block: Block,
    matrices: Mapping[str, QTensor],
    vectors: Mapping[str, F32],
    tick: Callable[[], None] = lambda: None,
) -> dict[str, Statistics]:
    """Statistics of what the ``quantized`` prefix lets every matrix read, with how far the ``original`` is from it.

    Both run the block with the weights of the source. The states of the original move; the others wait for the block as
    it will be stored.
    """
    engine, widths = quantized.engine(block, matrices, vectors), block.program.widths
    buffers, last = sorted(set(block.reads.values())), writer(block)
    sums = {buffer: Accumulator(widths[buffer]) for buffer in buffers}
    drifts = {buffer: CrossMoments(widths[buffer], widths[buffer]) for buffer in buffers}
    behind = None if last is None else CrossMoments(widths[block.output], widths[block.reads[last]])
    both = (walk.steps(engine, block, buffers, move=walk is original) for walk in (original, quantized))
    for at, (exact, found) in enumerate(zip(*both, strict=True)):
        for buffer in buffers:
            sums[buffer].add(found[buffer])
            drifts[buffer].add(exact[buffer] - found[buffer], found[buffer])
        if last is not None and behind is not None and original.states is not None and quantized.states is not None:
            behind.add(original.states[at] - quantized.states[at], found[block.reads[last]])
        tick()
    measured = {
        buffer: replace(
            sums[buffer].statistics(reader(block, buffer)), logits=block.is_last, drift=drifts[buffer].moments
        )
        for buffer in buffers
    }
    of = {name: measured[buffer] for name, buffer in block.reads.items()}
    if last is not None and behind is not None:
        of[last] = replace(of[last], behind=behind.moments)
    return of


def writer(block: Block) -> str | None:
    """The matrix whose outputs, added to what the block reads, are what it leaves: the end of a residual branch."""
    if not block.first or block.is_last:
        return None
    makers = {buffer: op for op in block.program.ops for buffer in op.outputs}
    end = makers[block.output]
    if end.kind != "add" or 0 not in end.inputs:
        return None
    (branch,) = [buffer for buffer in end.inputs if buffer != 0] or [0]
    maker = makers[branch]
    return maker.weights[maker.outputs.index(branch)] if maker.kind == "linear" else None
