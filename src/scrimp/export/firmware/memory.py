"""What of a network is in RAM, and when: activations from the operation that makes them to the last that reads them.

Time is the index of the operation. A chain's input and output are alive through all of it, a channel between two of its
operations only from the one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from scrimp.export.firmware.arena import ALIGNMENT, Arena, Block, place
from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.schedule import Stage, is_linear
from scrimp.integer.program import IntegerProgram, Op, Product


def blocks(program: IntegerProgram, stages: Sequence[Stage], packings: Mapping[str, str]) -> list[Block]:
    """``packings``: operation → name of the packing. Named ``buffer.3``, ``channel.conv1``, ``tables.conv1`` …"""
    found, end, clock = list[Block](), len(program.ops) - 1, count()
    made: dict[int, int] = {0: 0}
    read: dict[int, int] = {}
    for stage in stages:
        times = [next(clock) for _ in stage.ops]
        made[stage.output] = times[0]
        read |= dict.fromkeys(stage.input, times[-1])
        for op, time in zip(stage.ops, times, strict=True):
            found += _scratch(program, op, packings, stage.chained, time)
            if op is not stage.ops[-1]:
                image = program.buffers[op.output]
                found.append(Block(f"channel.{op.name}", image.height * image.width, time, time + 1))
    for buffer, time in made.items():
        logits = buffer == program.ops[-1].output
        size = program.buffers[buffer].size * (4 if logits else 1)
        found.append(Block(f"buffer.{buffer}", size, time, end if logits else read.get(buffer, time)))
    return found


def arena_of(program: IntegerProgram, stages: Sequence[Stage], packings: Mapping[str, str]) -> Arena:
    """Everything placed. Tables are built of whole groups of inputs, so the arena ends behind the last of them."""
    arena = place(blocks(program, stages, packings))
    ends = [arena.size]
    for stage in stages:
        for op in stage.ops:
            if isinstance(op, Product) and PACKINGS[packings[op.name]].tables:
                inputs = op.weight.shape[1]
                patch, buffer = f"patch.{op.name}", f"buffer.{op.input}"
                end = (
                    arena.offsets[patch] + inputs
                    if patch in arena.offsets
                    else arena.offsets[buffer] + program.buffers[op.input].size
                )
                ends.append(end + -inputs % PACKINGS[packings[op.name]].group)
    return Arena(arena.offsets, -(-max(ends) // ALIGNMENT) * ALIGNMENT)


def _scratch(program: IntegerProgram, op: Op, packings: Mapping[str, str], chained: bool, time: int) -> list[Block]:
    if not isinstance(op, Product):
        return []
    outputs = 1 if chained else len(op.weight) // op.groups
    sizes = {
        "acc": 0 if sums_are_logits(program, op) else 4 * outputs,
        "tables": 2 * PACKINGS[packings[op.name]].tables,
        "patch": op.weight.shape[1] if gathers(program, op, chained) else 0,
    }
    return [Block(f"{name}.{op.name}", size, time, time) for name, size in sizes.items() if size]


def sums_are_logits(program: IntegerProgram, op: Product) -> bool:
    """Whether the sums are requantized where they lie: they are the logits then."""
    return op is program.ops[-1] and is_linear(program, op)


def gathers(program: IntegerProgram, op: Product, chained: bool = False) -> bool:
    """Whether the inputs under the kernel are copied together first."""
    return not is_linear(program, op) and not (op.kernel == (1, 1) and op.groups == 1 and not op.padding)
