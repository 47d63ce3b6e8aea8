"""What the walk of a calibration will take: one block over one window is timed, and the largest things are counted."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from scrimp import models
from scrimp.calibrate.accumulate import TOKENS_AT_ONCE
from scrimp.calibrate.split import STAND_IN, Block, split
from scrimp.calibrate.states import MEMORY_BYTES
from scrimp.calibrate.walk import Walk
from scrimp.calibrate.windows import Calibration
from scrimp.quantize.plan import Plan
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor

#: The best of so many windows counts, after one that warms up: what else runs now may not run later.
_TIMED = 3


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    memory_bytes: int  #: beside what quantizing one matrix takes


def walk_cost(source: Source, plan: Plan, calibration: Calibration) -> Cost:
    """Time of all windows through all blocks, and memory of states, one block and its moments."""
    _, program = models.build(source.config)
    blocks = split(program)
    count, length = calibration.windows.shape
    widest = max(program.widths[block.output] for block in blocks if not block.is_last)
    states = min(4 * count * length * widest, MEMORY_BYTES)
    held = max(sum(source.tensors[name].nbytes for name in block.matrices) for block in blocks)
    # float64 sums, and the float32 rows that wait to be added
    moments = max(sum(8 * k * k + 4 * TOKENS_AT_ONCE * k for k in _sides(block)) for block in blocks)
    return Cost(_seconds(source, plan, blocks, calibration), states + held + moments)


def _seconds(source: Source, plan: Plan, blocks: tuple[Block, ...], calibration: Calibration) -> float:
    """The middle block stands for all: windows · weights · the time of one weight for one window."""
    block = blocks[len(blocks) // 2]
    if not block.first or not block.runs:
        return 0.0
    matrices: dict[str, QTensor] = {}
    vectors: dict[str, F32] = {name: np.asarray(source.read(name), np.float32) for name in block.program.vectors}
    for name in block.runs:
        stored = source.read(name)
        assert isinstance(stored, QTensor)
        matrices[name] = stored
    length = calibration.windows.shape[1]
    width = block.program.matrices[STAND_IN][1]
    states = np.random.default_rng(0).standard_normal((1, length, width), np.float32)

    def timed(collect: bool) -> float:
        walk = Walk(np.zeros((1, length), np.int32))
        walk.states = states.copy()
        began = time.perf_counter()
        walk.run(block, matrices, vectors, collect=collect, move=True)
        return time.perf_counter() - began

    timed(False)
    passes = min(timed(True) for _ in range(_TIMED))
    if calibration.prefix == "quantized":
        passes += min(timed(False) for _ in range(_TIMED))
    weights = sum(int(np.prod(plan.shapes[name])) for name in block.runs)
    everything = sum(int(np.prod(plan.shapes[name])) for part in blocks for name in part.runs if part.first)
    return passes * len(calibration.windows) * everything / weights


def _sides(block: Block) -> list[int]:
    """K of every buffer that is measured."""
    return [block.program.widths[buffer] for buffer in set(block.reads.values())]
