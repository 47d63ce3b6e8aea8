"""The walk: hidden states of all windows go through a network one block at a time, and what passes by is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.accumulate import Accumulator
from scrimp.calibrate.split import STAND_IN, Block
from scrimp.calibrate.states import hold
from scrimp.calibrate.statistics import Statistics
from scrimp.engine import Engine, default_threads, pick_isa
from scrimp.engine.engine import Arithmetic
from scrimp.engine.float_path import as_run
from scrimp.formats import parse
from scrimp.tensors import F32, QTensor, from_floats

I32 = NDArray[np.int32]


class Walk:
    """Where all windows are: before a block, ``states (windows, T, width)`` is what it reads.

    Only the weights of the block that runs are needed, so memory depends on the largest block and not on the network.
    With ``arithmetic="int8"`` weights of few bits multiply with activations of 8, as a user will run them; what is
    measured is what goes into a product, before it is rounded. The same windows and weights give the same bits.
    """

    def __init__(
        self,
        windows: I32,
        *,
        directory: Path | None = None,
        threads: int | None = None,
        arithmetic: Arithmetic = "f32",
    ) -> None:
        self.windows = windows  #: token ids ``(windows, T)``
        self.states: F32 | None = None
        self._arithmetic: Arithmetic = arithmetic
        self._directory, self._threads = directory, threads or default_threads()

    def run(
        self,
        block: Block,
        matrices: Mapping[str, QTensor],
        vectors: Mapping[str, F32],
        *,
        collect: bool,
        move: bool,
        tick: Callable[[], None] = lambda: None,
        watch: Callable[[int, F32], None] | None = None,
    ) -> dict[str, Statistics]:
        """Run a block over all windows.

        ``collect`` returns the Statistics of what every matrix of the block multiplies with, one object for all that
        read the same buffer; ``watch`` is given each of these buffers with its rows instead. ``move`` makes the block's
        outputs the states; without it the block ends with the last operation that is measured. ``tick`` is called once
        per window.
        """
        engine = self.engine(block, matrices, vectors)
        buffers = sorted(set(block.reads.values())) if collect or watch else []
        sums = (
            {buffer: Accumulator(block.program.widths[buffer], self._threads) for buffer in buffers} if collect else {}
        )
        for found in self.steps(engine, block, buffers, move=move):
            for buffer, total in sums.items():
                total.add(found[buffer])
            if watch is not None:
                for buffer in buffers:
                    watch(buffer, found[buffer])
            tick()
        measured = {
            buffer: replace(total.statistics(reader(block, buffer)), logits=block.is_last)
            for buffer, total in sums.items()
        }
        return {name: measured[buffer] for name, buffer in block.reads.items()} if collect else {}

    def steps(self, engine: Engine, block: Block, buffers: Sequence[int], *, move: bool) -> Iterator[dict[int, F32]]:
        """These buffers of each window. With ``move`` a window's state becomes the block's output once the next one
        is asked for."""
        moving = move and not block.is_last
        taps = [*buffers, block.output] if moving and block.output not in buffers else buffers
        count, length = self.windows.shape
        outputs: F32 | None = self.states
        if moving:
            shape = (count, length, block.program.widths[block.output])
            outputs = outputs if outputs is not None and outputs.shape == shape else hold(shape, self._directory)
        last = _end(block, taps)
        still = np.zeros(length, np.int32)
        for at in range(count):
            tokens, given = (still, {0: self.states[at]}) if block.first and self.states is not None else (
                self.windows[at], {})  # fmt: skip
            found = engine.run(tokens, 0, block.first, last, inputs=given, outputs=taps)
            yield found
            if moving and outputs is not None:
                outputs[at] = found[block.output]
        self.states = outputs

    def engine(self, block: Block, matrices: Mapping[str, QTensor], vectors: Mapping[str, F32]) -> Engine:
        """What runs a block, with these weights."""
        assert not block.first or self.states is not None, "the blocks before it have not run"
        needed = {name: as_run(matrices[name]) for name in block.runs}
        if block.first:
            shape = block.program.matrices[STAND_IN]
            needed = {STAND_IN: from_floats(parse("f32"), np.zeros(shape, np.float32)), **needed}
        length = self.windows.shape[1]
        return Engine(
            block.program,
            needed,
            {name: vectors[name] for name in block.program.vectors},
            context=length,
            chunk=length,
            threads=self._threads,
            isa=pick_isa(),
            arithmetic=self._arithmetic,
            kv="f32",
        )


def _end(block: Block, buffers: Sequence[int]) -> int:
    """The operations before this one make all these buffers."""
    makers = (at + 1 for at, op in enumerate(block.program.ops) if not set(op.outputs).isdisjoint(buffers))
    return max(block.first, *makers, 0)


def reader(block: Block, buffer: int) -> str:
    return next(name for name, read in block.reads.items() if read == buffer)
