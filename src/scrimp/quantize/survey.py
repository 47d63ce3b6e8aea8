"""What every matrix would take and lose at every rate, from one walk through the network: the budget of packed stores.

A layer's output error at a step is known without rounding under feedback: what plain rounding misses per weight, times
the pivots' ``Σ R_kk²``. The network's loss for a given output error of one matrix comes from its sensitivity.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.walk import Walk
from scrimp.calibrate.windows import Calibration
from scrimp.formats import parse
from scrimp.formats.code import F64
from scrimp.progress import SILENT, Progress
from scrimp.quantize import ecsq, sensitivity
from scrimp.quantize.decoded import decode
from scrimp.quantize.methods import method
from scrimp.quantize.plan import ENDS, Choice, Plan
from scrimp.quantize.rewriting import rewrite
from scrimp.quantize.sensitivity import PROBE, PROBE_ENDS, squared_error
from scrimp.quantize.walked import route
from scrimp.sources.source import Source
from scrimp.store.coded import encode
from scrimp.tensors import F32, QTensor, scale_bytes

#: Codes at any rate: eight bits in memory, what they are worth in the file.
FORMAT = parse("int8:row")
#: Steps that rates are measured at, over the root mean square of the weights: 1 to 7 bits where they are normal …
STEPS = tuple(2.2 * 2.0**-octave for octave in range(7))
#: … and how many offers lie in an octave: in between bits are linear in the logarithm of the step, as the error's is.
PER_OCTAVE = 4
#: Rows of a matrix that a rate is measured on, at least.
SAMPLE_ROWS = 128
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
    count = min(len(weight), max(SAMPLE_ROWS, len(weight) // 64))
    rows = np.linspace(0, len(weight) - 1, count).astype(np.intp)
    probed, squared = _probe_errors(name, decode(stored), original)
    size = float(np.sqrt(np.square(weight, dtype=np.float64).mean())) or 1.0
    measured = [(*ecsq.rate(weight, levels, size * step * aim.relative, rows), size * step) for step in STEPS]
    bits = _between([bits for bits, _, _ in measured])
    errors = np.exp2(_between([float(np.log2(max(missed, 1e-30) * step**2)) for _, missed, step in measured]))
    scales = scale_bytes(FORMAT, stored.shape)
    offers = [
        Offer(round(rate, 2), int(rate * weight.size / 8) + scales, len(weight) * error * aim.pivots / probed)
        for rate, error in zip(bits.tolist(), errors.tolist(), strict=True)
        if ecsq.RATES[0] <= rate <= ecsq.RATES[1]
    ]
    return Surveyed(tuple(offers), len(encode(stored)), squared)


def _between(values: Sequence[float]) -> F64:
    """Values at every octave → at every step of ``PER_OCTAVE``."""
    at = np.arange((len(values) - 1) * PER_OCTAVE + 1) / PER_OCTAVE
    return np.interp(at, np.arange(len(values)), values)


def _probe_errors(name: str, weight: F32, statistics: Statistics | None) -> tuple[float, float]:
    """Of the rounding that a sensitivity was measured with: its output error in the measure of ecsq, and the squared
    relative error of its weights."""
    aim = ecsq.objective(weight, statistics)
    rounded = method("rtn")(weight, PROBE_ENDS if name in ENDS else PROBE).dequantize()
    return float(aim.errors(weight - rounded).sum()) or 1.0, squared_error(weight, rounded)


def remember(path: Path, found: Mapping[str, Surveyed]) -> None:
    """Keep a survey for the next goal; where it can't be kept, it will be made again."""
    sensitivity.remember(path, {name: asdict(surveyed) for name, surveyed in found.items()})


def recall(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Surveyed] | None:
    """What was kept, or None where there is nothing, or not what a survey of these tensors holds."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = {
            name: Surveyed(
                tuple(Offer(**offer) for offer in entry["offers"]), entry["kept_bytes"], entry["probe_error"]
            )
            for name, entry in told.items()
        }
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    if found.keys() != {name for name, shape in shapes.items() if len(shape) == 2}:
        return None
    numbers = [n for one in found.values() for n in (one.kept_bytes, one.probe_error)]
    numbers += [n for one in found.values() for offer in one.offers for n in (offer.bits, offer.nbytes, offer.error)]
    return found if all(type(n) in (int, float) and 0 <= n < math.inf for n in numbers) else None
