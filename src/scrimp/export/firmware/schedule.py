"""In which order a network runs on a chip: an operation at a time, or, to save RAM, a channel at a time.

A *chain* is a run of operations after which channel c depends on channel c alone: a convolution of one group, then
depthwise convolutions and pools. Instead of whole activations it needs one channel of each::

    for every channel c:   conv (row c of its weights) → one channel → depthwise → one channel → pool → channel c of out
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from scrimp.integer.program import Add, AvgPool, IntegerProgram, MaxPool, Op, Product, inputs_of

#: All choices of so many are tried.
MOST_CHAINS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """``ops`` run one after the other; where ``chained``, all of them for one channel, then for the next."""

    ops: tuple[Op, ...]
    chained: bool = False

    @property
    def input(self) -> tuple[int, ...]:
        return inputs_of(self.ops[0])

    @property
    def output(self) -> int:
        return self.ops[-1].output


def one_by_one(program: IntegerProgram) -> tuple[Stage, ...]:
    return tuple(Stage((op,)) for op in program.ops)


def by_channel(program: IntegerProgram, chained: Collection[int] | None = None) -> tuple[Stage, ...]:
    """The same with chains: those that begin at the operations ``chained``, or all there are."""
    stages, at = list[Stage](), 0
    while at < len(program.ops):
        length = _chain_length(program, at) if chained is None or at in chained else 1
        stages.append(Stage(tuple(program.ops[at : at + length]), length > 1))
        at += length
    return tuple(stages)


def schedules(program: IntegerProgram) -> Iterator[tuple[Stage, ...]]:
    """Every choice of chains, fewest first; of more than five, all that begin with the first ones."""
    starts, at = list[int](), 0
    for stage in by_channel(program):
        starts += [at] if stage.chained else []
        at += len(stage.ops)
    if len(starts) > MOST_CHAINS:
        yield from (by_channel(program, starts[:count]) for count in range(1, len(starts) + 1))
        return
    for count in range(1, len(starts) + 1):
        yield from (by_channel(program, chosen) for chosen in combinations(starts, count))


def _chain_length(program: IntegerProgram, start: int) -> int:
    """How many operations from ``start`` on form a chain; 1 where none does."""
    ops = program.ops
    if not _begins(program, ops[start]):
        return 1
    length = 1
    while start + length < len(ops) and _goes_on(program, ops[start + length], ops[start + length - 1], ops):
        length += 1
    return length


def _begins(program: IntegerProgram, op: Op) -> bool:
    """A convolution whose channels are computed from everything, and not the one that makes the logits."""
    return isinstance(op, Product) and op.groups == 1 and op is not program.ops[-1] and not is_linear(program, op)


def _goes_on(program: IntegerProgram, op: Op, before: Op, ops: Sequence[Op]) -> bool:
    if isinstance(op, Add) or op.input != before.output or op is ops[-1]:
        return False
    if sum(before.output in inputs_of(other) for other in ops) != 1:
        return False
    return isinstance(op, MaxPool | AvgPool) or is_depthwise(program, op)


def is_depthwise(program: IntegerProgram, op: Product) -> bool:
    """Of one output for each input channel."""
    channels = program.buffers[op.input].channels
    return op.groups == channels == program.buffers[op.output].channels and not is_linear(program, op)


def is_linear(program: IntegerProgram, op: Product) -> bool:
    """Whether its kernel is the whole picture, so that it reads its input where it lies."""
    image = program.buffers[op.input]
    return op.kernel == (image.height, image.width) and op.padding == 0 and op.groups == 1
