"""What the walk of a calibration will take: one layer over a few windows is timed, and the largest things counted."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from scrimp import models
from scrimp.calibrate.accumulate import TOKENS_AT_ONCE
from scrimp.calibrate.split import STAND_IN, Block, split
from scrimp.calibrate.states import MEMORY_BYTES
from scrimp.calibrate.walk import Walk
from scrimp.calibrate.windows import Calibration, Prefix
from scrimp.quantize import yaqa
from scrimp.quantize.apply import calibrates, wants_gradients
from scrimp.quantize.corrected import ROWS_AT_ONCE
from scrimp.quantize.methods import REWRITES
from scrimp.quantize.plan import Plan
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor

#: The best of so many trials counts, after one that warms up: what else runs now may not run later.
_TIMED = 2
#: Windows of the longer trial.
_WINDOWS = 3
#: Of a square matrix whose product is timed.
_SIDE = 768
#: Blocks that are timed: a layer.
_BLOCKS = 2
#: What is collected and what moves in each run of a block. Cross moments cost about as much as twice the moments.
_RUNS: dict[Prefix, tuple[tuple[bool, bool], ...]] = {
    "original": ((True, True),),
    "quantized": ((True, False), (False, True)),
    "joint": ((True, True), (True, False), (False, True)),
}


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
    both = 2 if calibration.prefix == "joint" else 1  # states, and moments with their drift
    states = both * min(4 * count * length * widest, MEMORY_BYTES)
    held = max(sum(source.tensors[name].nbytes for name in block.matrices) for block in blocks)
    # float64 sums, and the float32 rows that wait to be added
    moments = max(sum(both * 8 * k * k + 4 * TOKENS_AT_ONCE * k for k in _sides(block)) for block in blocks)
    return Cost(_seconds(source, plan, blocks, calibration), states + held + moments + _made_of_moments(plan, both))


def _made_of_moments(plan: Plan, both: int) -> int:
    """Bytes of what is made of the widest moments ``(K, K)``: a factor in float64 and its feedback in float32; where
    they are rotated first, or divided by a fold, what that gives; in joint passes the rows that are corrected."""
    found = 0
    for name, choice in plan.choices.items():
        if calibrates(choice):
            words, (n, k) = choice.method.split("+"), plan.shapes[name]
            also = 8 if "quip" in words else 8 * both if REWRITES.keys() & set(words) else 0
            rows = 4 * 8 * min(n, ROWS_AT_ONCE) * k if both == 2 else 0
            found = max(found, (8 + 4 + also) * k * k + rows)
    return found


def gradient_cost(source: Source, plan: Plan, calibration: Calibration) -> Cost:
    """Where a method wants gradients: six operations for each weight and token and two for each entry of each ``g gᵀ``,
    as fast as a product of float32 is here; the network decoded, all that a window leaves behind, and the sums."""
    squares = _squares(plan)
    if not squares:
        return Cost(0.0, 0)
    length, widths = calibration.windows.shape[1], models.build(source.config)[1].widths
    tokens = min(yaqa.WINDOWS, len(calibration.windows)) * length
    some = np.ones((_SIDE, _SIDE), np.float32)
    times = []
    for _ in range(1 + _TIMED):
        began = time.perf_counter()
        some @ some
        times.append(time.perf_counter() - began)
    seconds = float(tokens * (6 * _weights_of(plan) + 2 * squares) / (2 * _SIDE**3) * min(times))
    held = 4 * squares if 4 * squares <= MEMORY_BYTES else 0
    return Cost(seconds, 4 * _weights_of(plan) + 8 * length * sum(widths) + held)


def _squares(plan: Plan) -> int:
    """Entries of all that gradients add up to."""
    rows = (plan.shapes[name][0] for name, choice in plan.choices.items() if wants_gradients(choice))
    return sum(n * n for n in rows if n <= yaqa.MAX_ROWS)


def _weights_of(plan: Plan) -> int:
    return sum(int(np.prod(plan.shapes[name])) for name in plan.choices)


def _seconds(source: Source, plan: Plan, blocks: tuple[Block, ...], calibration: Calibration) -> float:
    """The middle blocks, attention and feed-forward, stand for all: their time for each weight they multiply with.

    What a block takes once, however many windows there are, is told apart from what each window takes.
    """
    few = [block for block in blocks if block.first and block.runs]
    few = few[(len(few) - 1) // 2 :][:_BLOCKS]
    passes = sum(_passes(source, block, calibration) for block in few)
    share = sum(_size(plan, block) for block in few)
    return passes * sum(_size(plan, block) for block in blocks if block.first) / share if share else 0.0


def _passes(source: Source, block: Block, calibration: Calibration) -> float:
    """Seconds of one block and all windows: measured, and run again where that makes the next one's inputs."""
    count, length = calibration.windows.shape
    matrices, vectors = _weights(source, block)
    width = block.program.matrices[STAND_IN][1]
    states = np.random.default_rng(0).standard_normal((_WINDOWS, length, width), np.float32)

    def timed(windows: int, collect: bool, move: bool) -> float:
        walk = Walk(np.zeros((windows, length), np.int32))
        walk.states = states[:windows].copy()
        began = time.perf_counter()
        walk.run(block, matrices, vectors, collect=collect, move=move)
        return time.perf_counter() - began

    timed(1, True, True)
    seconds = 0.0
    for collect, move in _RUNS[calibration.prefix]:
        one, more = (min(timed(windows, collect, move) for _ in range(_TIMED)) for windows in (1, _WINDOWS))
        seconds += one + max(0.0, more - one) / (_WINDOWS - 1) * (count - 1)
    return seconds


def _weights(source: Source, block: Block) -> tuple[dict[str, QTensor], dict[str, F32]]:
    matrices: dict[str, QTensor] = {}
    for name in block.runs:
        stored = source.read(name)
        assert isinstance(stored, QTensor)
        matrices[name] = stored
    return matrices, {name: np.asarray(source.read(name), np.float32) for name in block.program.vectors}


def _size(plan: Plan, block: Block) -> int:
    return sum(int(np.prod(plan.shapes[name])) for name in block.runs)


def _sides(block: Block) -> list[int]:
    """K of every buffer that is measured."""
    return [block.program.widths[buffer] for buffer in set(block.reads.values())]
