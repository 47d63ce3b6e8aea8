"""A Program cut into blocks: the stretches between two points where only one buffer is alive.

In a transformer those points lie where nothing but the residual stream is alive, so attention with its norm is a block,
and so is the feed-forward part; but only the operations say so, no name of a layer and no architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scrimp.program import Op, Program

#: The matrix of the operation that stands in for the embedding: one row that is never read.
STAND_IN = "(the input of the block)"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive operations as a Program of their own.

    Unless the block embeds tokens, operation 0 stands in for what came before: it owns the buffer of the input, and
    ``first`` is 1, so it never runs. The block that makes the logits ends before the product that makes them; where no
    product makes the output, the last block is one like the others.
    """

    program: Program
    first: int  #: the operation to start with
    output: int  #: the buffer that the next block reads; -1 in a block that ends before the logits
    matrices: tuple[str, ...]  #: all of the stretch, in the order of use
    runs: tuple[str, ...]  #: those that the operations of ``program`` read
    reads: dict[str, int]  #: every matrix that multiplies → the buffer it multiplies with

    @property
    def is_last(self) -> bool:
        return self.output < 0


def split(program: Program) -> tuple[Block, ...]:
    """The blocks of a Program in order; together they hold each of its operations once."""
    ends: list[tuple[int, int]] = []
    begin = 0
    for at, buffer in borders(program):
        if any(op.weights for op in program.ops[begin:at]):  # a norm by itself joins what follows it
            ends.append((at, buffer))
            begin = at
    ends[-1] = (len(program.ops), program.output)  # or, behind the last product, what is before it
    blocks: list[Block] = []
    begin, crossing = 0, -1
    for at, buffer in ends:
        blocks.append(_block(program, program.ops[begin:at], crossing, buffer))
        begin, crossing = at, buffer
    return tuple(blocks)


def borders(program: Program) -> list[tuple[int, int]]:
    """``(operations before it, the one buffer alive there)`` of every point where the Program can be cut."""
    last_read = {index: at for at, op in enumerate(program.ops) for index in op.inputs}
    last_read[program.output] = len(program.ops)
    alive: set[int] = set()
    found = []
    for at, op in enumerate(program.ops):
        alive = {index for index in (*alive, *op.outputs) if last_read.get(index, -1) > at}
        if len(alive) == 1:
            found.append((at + 1, next(iter(alive))))
    return found


def _block(whole: Program, ops: Sequence[Op], entry: int, leaves: int) -> Block:
    """Operations as a Program whose buffers and caches count from 0; ``entry`` is the buffer that comes in, or -1."""
    head = whole.head
    is_last = leaves == whole.output and head is not None
    matrices = tuple(dict.fromkeys(name for op in ops for name in op.weights))
    if is_last:
        ops = ops[: next(at for at, op in enumerate(ops) if op is head)]
    part = Program({}, {})
    number: dict[int, int] = {}

    def place(index: int) -> int:
        number[index] = len(part.widths)
        part.widths.append(whole.widths[index])
        return number[index]

    if entry >= 0:
        part.matrices[STAND_IN] = (1, whole.widths[entry])
        part.ops.append(Op("embed", (), (place(entry),), (STAND_IN,), ints=(0,), floats=(1.0,)))
    for op in ops:
        inputs = tuple(number[index] for index in op.inputs)
        outputs = tuple(place(index) for index in op.outputs)
        ints = op.ints
        if op.kind == "attention":
            part.caches.append(whole.caches[op.ints[0]])
            ints = (len(part.caches) - 1, *op.ints[1:])
        part.ops.append(replace(op, inputs=inputs, outputs=outputs, ints=ints))
        part.matrices.update({name: whole.matrices[name] for name in op.weights})
        part.vectors.update({name: whole.vectors[name] for name in op.vectors if name})
    reads = {name: op.inputs[0] for op in part.ops if op.kind == "linear" for name in op.weights}
    if is_last and head is not None:
        reads |= dict.fromkeys(head.weights, number[head.inputs[0]])
    runs = tuple(name for name in part.matrices if name != STAND_IN)
    return Block(part, int(entry >= 0), -1 if is_last else number[leaves], matrices, runs, reads)
