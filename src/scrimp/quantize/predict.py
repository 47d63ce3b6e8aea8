"""What compressing will take, told before: bytes exactly, time from a sample, memory from the largest matrix."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scrimp.calibrate.accumulate import SAMPLE_ROWS
from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.windows import Calibration
from scrimp.engine.float_path import bytes_as_run, row_reader
from scrimp.measure.memory import peak_bytes
from scrimp.quantize.apply import calibrates
from scrimp.quantize.around import unfolded
from scrimp.quantize.decoded import output_error, relative_error
from scrimp.quantize.fold import Group
from scrimp.quantize.methods import method
from scrimp.quantize.plan import KEEP, Choice, Plan
from scrimp.quantize.predict_walk import Cost, gradient_cost, walk_cost
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor

#: A matrix of this many weights keeps all threads busy, so its time can be scaled up.
_SAMPLE_WEIGHTS = 500_000
#: Rows are taken in multiples of this: other numbers are slower to rotate.
_ROWS = 64


@dataclass(frozen=True, slots=True)
class Prediction:
    file_bytes: int  #: of the whole directory
    bits_per_weight: float
    seconds: float  #: quantizing only, without the loss
    memory_bytes: int  #: peak of this process

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def predict(source: Source, plan: Plan, file_bytes: int, calibration: Calibration | None = None) -> Prediction:
    """Quantizes some rows of one matrix per choice to see how long they take, and runs one layer over a few windows."""
    base = peak_bytes()
    weights: defaultdict[Choice, dict[str, int]] = defaultdict(dict)
    for name, choice in plan.choices.items():
        weights[choice][name] = int(np.prod(plan.shapes[name]))
    seconds = sum(_seconds(source, counts, choice) for choice, counts in weights.items())
    largest = max(plan.choices, key=lambda name: weights[plan.choices[name]][name])
    # the stored form twice, as its parts and where they are packed; codes and, where they are chosen anew, float32
    each = 1 if plan.choices[largest].method == KEEP else 5
    memory = (
        each * weights[plan.choices[largest]][largest] + 2 * plan.tensor_bytes(largest) + source.tensors[largest].nbytes
    )
    # the store is opened in the end, and what does not run as it is stored is decoded then
    opened = sum(
        bytes_as_run(choice.format, (plan.shapes[name][0], plan.shapes[name][1]))
        for name, choice in plan.choices.items()
        if not choice.format.runs
    )
    memory = max(memory, file_bytes + opened) if opened else memory
    walk = Cost(0.0, 0) if calibration is None else walk_cost(source, plan, calibration)
    first = Cost(0.0, 0) if calibration is None else gradient_cost(source, plan, calibration)
    memory = max(first.memory_bytes, memory + walk.memory_bytes)
    return Prediction(
        file_bytes, 8 * file_bytes / plan.parameters, seconds + first.seconds + walk.seconds, base + memory
    )


def _seconds(source: Source, counts: dict[str, int], choice: Choice) -> float:
    """For all matrices of one choice; where it calibrates, those of one width stand for each other."""
    if not calibrates(choice):
        return _sampled(source, counts, choice)
    widths: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for name, count in counts.items():
        widths[source.tensors[name].shape[1]][name] = count
    return sum(_sampled(source, same, choice) for same in widths.values())


def _sampled(source: Source, counts: dict[str, int], choice: Choice) -> float:
    """From one matrix. A method that calibrates works on the moments first, however many rows there are: two samples
    tell that apart."""
    name = min(counts, key=lambda name: (counts[name] < _SAMPLE_WEIGHTS, abs(counts[name] - _SAMPLE_WEIGHTS)))
    total = sum(counts.values())
    began = time.perf_counter()
    stored = source.read(name)
    assert isinstance(stored, QTensor)
    reading = total * (time.perf_counter() - began) / counts[name]
    if choice.method == KEEP:
        return reading
    rows, cols = min(stored.shape[0], -(-_SAMPLE_WEIGHTS // stored.shape[1])), stored.shape[1]
    rows -= rows % _ROWS if rows > _ROWS else 0
    choice = replace(choice, method=unfolded(choice.method))
    weight = row_reader(stored)(0, rows)
    if not calibrates(choice):
        return reading + total * _timed(weight, choice, None) / weight.size
    few = max(1, rows // 4)
    _timed(weight[:few], choice, _identity(cols))  # warms up
    little, all_rows = (_timed(weight[:n], choice, _identity(cols)) for n in (few, rows))
    each = max(0.0, all_rows - little) / max(1, (rows - few) * cols)
    return reading + total * each + len(counts) * max(0.0, little - each * few * cols)


def _identity(cols: int) -> Statistics:
    """New ones for every trial, so that nothing made of them before is found again."""
    ones = np.ones(cols, np.float32)
    return Statistics(
        cols, np.eye(cols), np.zeros(cols, np.float32), ones, ones, np.ones((SAMPLE_ROWS, cols), np.float32)
    )


def _timed(weight: F32, choice: Choice, statistics: Statistics | None) -> float:
    began = time.perf_counter()
    chosen = method(choice.method)
    if chosen.fisher and statistics is not None:
        statistics = replace(statistics, fisher=np.eye(len(weight), dtype=np.float32))
    if chosen.rewrite is not None and statistics is not None:
        one = {"": weight}, statistics, {"": choice.format}, {"": chosen.run}
        chosen.rewrite(Group(("",), weight.shape[1]), *one)
    tensor = chosen(weight, choice.format, statistics)
    relative_error(weight, tensor)
    if statistics is not None:
        output_error(weight, tensor, statistics)
    return time.perf_counter() - began
