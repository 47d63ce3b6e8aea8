"""What every matrix would take and lose at every rate, from one walk through the network: the budget of packed stores.

A layer's output error at a step is known without rounding under feedback: what plain rounding misses per weight, times
the pivots' ``Σ R_kk²``. The network's loss for a given output error of one matrix comes from its sensitivity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.walk import Walk
from scrimp.calibrate.windows import Calibration
from scrimp.formats import parse
from scrimp.progress import SILENT, Progress
from scrimp.quantize import ecsq
from scrimp.quantize.decoded import decode
from scrimp.quantize.methods import method
from scrimp.quantize.plan import ENDS, Choice, Plan
from scrimp.quantize.rewriting import rewrite
from scrimp.quantize.sensitivity import PROBE, PROBE_ENDS, squared_error
from scrimp.quantize.walked import route
from scrimp.sources.source import Source
from scrimp.store.coded import encode
from scrimp.tensors import F32, QTensor

#: Codes at any rate: eight bits in memory, what they are worth in the file.
FORMAT = parse("int8:row")
#: Coded bits per weight that a plan may choose from, without the scales.
RATES = tuple(float(bits) for bits in np.arange(1.25, 6.26, 0.25))
#: Rows of a matrix that a rate is measured on, at least.
SAMPLE_ROWS = 256
#: Windows of the calibration that the survey walks over.
WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """A matrix at a rate: its bytes in the file, and its output error over that of the sensitivity's probe."""

    bits: float
    nbytes: int
    error: float


@dataclass(frozen=True, slots=True)
class Surveyed:
    offers: tuple[Offer, ...]
    kept_bytes: int  #: coded as the source stores it
    probe_error: float  #: the squared relative error of the weights in the sensitivity's probe


def survey(
    source: Source, shapes: Mapping[str, tuple[int, ...]], calibration: Calibration, *, progress: Progress = SILENT
) -> dict[str, Surveyed]:
    """Of every matrix. The walk is over the original network, some windows of it."""
    windows = calibration.windows[:: max(1, len(calibration.windows) // WINDOWS)][:WINDOWS]
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    plan = Plan(shapes, dict.fromkeys(matrices, Choice(FORMAT, "waterfill+ecsq:4")))
    blocks, due, groups, _ = route(plan, source)
    vectors = {n: np.asarray(source.read(n), np.float32) for n, shape in shapes.items() if len(shape) == 1}
    walk, found = Walk(windows), dict[str, Surveyed]()
    progress.start("survey", len(matrices))
    for block, names, block_groups in zip(blocks, due, groups, strict=True):
        stored: dict[str, QTensor] = {}
        for name in dict.fromkeys((*block.runs, *names)):
            tensor = source.read(name)
            assert isinstance(tensor, QTensor)
            stored[name] = tensor
        statistics = walk.run(block, stored, vectors, collect=True, move=True)
        rewritten = rewrite(block_groups, plan, stored, vectors, statistics)
        for name in names:
            found[name] = _surveyed(name, stored[name], rewritten.weight(name, decode(stored[name])),
                                    statistics.get(name), rewritten.statistics.get(name))  # fmt: skip
            progress.advance(1, name)
    progress.finish()
    return found


def _surveyed(
    name: str, stored: QTensor, weight: F32, original: Statistics | None, statistics: Statistics | None
) -> Surveyed:
    levels, aim = ecsq.levels_of_rows(weight, FORMAT), ecsq.objective(weight, statistics)
    count = min(len(weight), max(SAMPLE_ROWS, len(weight) // 32))
    rows = np.linspace(0, len(weight) - 1, count).astype(np.intp)
    pivots = float(np.square(aim.factor.diagonal()).sum())
    probed, squared = _probe_errors(name, decode(stored), original)
    offers, step = [], 2.0 * float(np.sqrt(np.square(weight, dtype=np.float64).mean()))
    for bits in RATES:
        for _ in range(3):
            got, missed = ecsq.rate(weight, levels, step * aim.relative, rows)
            if abs(got - bits) < 0.01:
                break
            step *= 2.0 ** (got - bits)
        nbytes = int(got * weight.size / 8) + 2 * len(weight)
        offers.append(Offer(bits, nbytes, len(weight) * missed * step**2 * pivots / probed))
    return Surveyed(tuple(offers), len(encode(stored)), squared)


def _probe_errors(name: str, weight: F32, statistics: Statistics | None) -> tuple[float, float]:
    """Of the rounding that a sensitivity was measured with: its output error in the measure of ecsq, and the squared
    relative error of its weights."""
    aim = ecsq.objective(weight, statistics)
    rounded = method("rtn")(weight, PROBE_ENDS if name in ENDS else PROBE).dequantize()
    missed = ((weight - rounded)[:, aim.order] / aim.relative[:, None].astype(np.float32)) @ aim.factor.astype(
        np.float32
    )
    return float(np.square(missed, dtype=np.float64).sum()) or 1.0, squared_error(weight, rounded)
