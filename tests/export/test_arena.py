"""Nothing that is alive at the same time overlaps, and hardly anything is wasted."""

from itertools import combinations

import numpy as np
import pytest
from random_programs import a_chain_program, a_program, random_packings

from scrimp.export.firmware.arena import Block, most_alive, place
from scrimp.export.firmware.memory import arena_of, blocks
from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.schedule import by_channel, one_by_one
from scrimp.integer.program import Product


def overlapping(arena, found):
    return [
        (a.name, b.name)
        for a, b in combinations(found, 2)
        if a.meets(b)
        and arena.offsets[a.name] < arena.offsets[b.name] + b.size
        and arena.offsets[b.name] < arena.offsets[a.name] + a.size
    ]


@pytest.mark.parametrize("seed", range(60))
def test_blocks_that_meet_in_time_never_meet_in_space(seed):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(int(rng.integers(1, 25))):
        first = int(rng.integers(0, 10))
        found.append(Block(f"b{i}", int(rng.integers(1, 300)), first, first + int(rng.integers(0, 4))))
    arena = place(found)
    assert overlapping(arena, found) == []
    assert all(
        offset % 4 == 0 and offset + block.size <= arena.size
        for block, offset in ((block, arena.offsets[block.name]) for block in found)
    )
    assert most_alive(found) <= arena.size <= 2 * most_alive(found)


@pytest.mark.parametrize("make", [a_program, a_chain_program])
@pytest.mark.parametrize("seed", range(30))
def test_a_network_s_blocks_are_where_and_when_they_are_used(seed, make):
    program = make(seed)
    packings = random_packings(program, seed)
    for stages in (one_by_one(program), by_channel(program)):
        found = blocks(program, stages, packings)
        arena = arena_of(program, stages, packings)
        assert overlapping(arena, found) == []
        whole = {f"buffer.{index}" for stage in stages for index in (*stage.input, stage.output)}
        assert whole <= arena.offsets.keys()
        for op in program.ops:
            if isinstance(op, Product) and PACKINGS[packings[op.name]].tables:
                assert f"tables.{op.name}" in arena.offsets


def test_a_chain_keeps_its_input_and_output_to_the_end():
    program = a_chain_program(0)
    stages = by_channel(program)
    assert stages[0].chained
    assert [op.name for op in stages[0].ops] == [op.name for op in program.ops[:-1]]
    found = {block.name: block for block in blocks(program, stages, random_packings(program, 0))}
    last = len(stages[0].ops) - 1
    assert found["buffer.0"].last == last
    assert found[f"buffer.{stages[0].output}"].first == 0
    assert all(found[f"channel.{op.name}"].last == i + 1 for i, op in enumerate(stages[0].ops[:-1]))
