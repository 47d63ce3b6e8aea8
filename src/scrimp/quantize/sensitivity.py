"""What rounding one matrix costs the whole network: the divergence it causes by itself, measured through the engine."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import _core, models
from scrimp.calibrate.split import borders
from scrimp.engine import Engine, default_threads, pick_isa
from scrimp.engine.float_path import as_run
from scrimp.errors import Refused
from scrimp.formats import Format, parse
from scrimp.measure.windows import calibration_text
from scrimp.model import F32, read_tensors
from scrimp.progress import SILENT, Progress
from scrimp.quantize.decoded import decode
from scrimp.quantize.methods import method
from scrimp.quantize.plan import ENDS
from scrimp.sources.source import Source
from scrimp.store.partial import write_durably
from scrimp.tensors import QTensor

#: Coarse enough to be far above the noise of float32, fine enough for the divergence to grow with the squared error.
PROBE = parse("int3:g64")
#: The ends of a network are too sensitive for that.
PROBE_ENDS = parse("int4:g64")
#: Tokens measured on: every matrix runs the network from its block on over them once.
WINDOWS, CONTEXT = 4, 128
#: Rows of a matrix on which the error of a format is estimated.
SAMPLE_ROWS = 64


class Probe:
    """The network in memory with its reference logits; matrices are exchanged and the divergence measured.

    Reference arithmetic (float32): what is measured is the weights' doing alone. What comes before the first exchanged
    matrix is not run again: hidden states are kept where the last measurement began, and only moved forward.
    """

    def __init__(self, source: Source, windows: NDArray[np.int32]) -> None:
        _, self._program = models.build(source.config)
        self.matrices, self._vectors, _ = read_tensors(source, self._program.matrices, self._program.vectors)
        self._windows, self._threads, self._isa = windows, default_threads(), pick_isa(None)
        self._original = self._engine({})
        self._prefix = _START
        self._expected = [self._logits(self._original, _START, at) for at in range(len(windows))]

    def divergence(self, changed: Mapping[str, QTensor]) -> float:
        """KL(original ‖ with ``changed`` in place), mean over tokens, nats; infinite where logits are not finite."""
        self._prefix = self._before(changed)
        engine, total = self._engine(changed), 0.0
        for at, expected in enumerate(self._expected):
            logits = self._logits(engine, self._prefix, at)
            found = _core.score(logits, np.zeros(len(logits), np.int32), expected,
                                threads=self._threads, isa=self._isa)  # fmt: skip
            total += float(np.mean(found["kl"]))
        return total / len(self._windows) if np.isfinite(total) else float("inf")

    def _engine(self, changed: Mapping[str, QTensor]) -> Engine:
        matrices = self.matrices | {name: as_run(tensor) for name, tensor in changed.items()}
        return Engine(
            self._program, matrices, self._vectors, context=self._windows.shape[1], chunk=self._windows.shape[1],
            threads=self._threads, isa=self._isa, arithmetic="f32",
        )  # fmt: skip

    def _before(self, changed: Collection[str]) -> _Prefix:
        """The last border of blocks before any of these matrices is used."""
        ops = self._program.ops
        used = next((at for at, op in enumerate(ops) if not set(op.weights).isdisjoint(changed)), len(ops))
        first, buffer = max((b for b in borders(self._program) if b[0] <= min(used, len(ops) - 1)), default=(0, -1))
        begin = self._prefix if self._prefix.first <= first else _START
        if begin.first == first:
            return begin
        moved = []
        for at, window in enumerate(self._windows):
            given = {begin.buffer: begin.states[at]} if begin.states else {}
            moved.append(self._original.run(window, 0, begin.first, first, inputs=given, outputs=[buffer])[buffer])
        return _Prefix(first, buffer, tuple(moved))

    def _logits(self, engine: Engine, prefix: _Prefix, at: int) -> F32:
        given = {prefix.buffer: prefix.states[at]} if prefix.states else {}
        end, output = len(self._program.ops), self._program.output
        return engine.run(self._windows[at], 0, prefix.first, end, inputs=given, outputs=[output])[output]


@dataclass(frozen=True, slots=True, eq=False)
class _Prefix:
    """Where the original network stands before operation ``first``: of each window what ``buffer`` holds there."""

    first: int
    buffer: int
    states: tuple[F32, ...]


_START = _Prefix(0, -1, ())


def sensitivities(probe: Probe, *, progress: Progress = SILENT) -> dict[str, float]:
    """Of every matrix the KL of the network, in nats, over the matrix's squared relative error.

    One matrix at a time is rounded coarsely, and the rest is as it was.
    """
    rounding, found = method("rtn"), {}
    progress.start("sensitivities", len(probe.matrices))
    for name, stored in probe.matrices.items():
        weight = decode(stored)
        rounded = rounding(weight, PROBE_ENDS if name in ENDS else PROBE)
        squared = squared_error(weight, decode(rounded))
        kl = probe.divergence({name: rounded}) if squared else 0.0
        found[name] = kl / squared if squared else 0.0
        progress.advance(1, name)
    progress.finish()
    return found


def remember(path: Path | None, measured: Mapping[str, Any]) -> None:
    """Keep measurements for the next call; where they can't be kept, they will be made again."""
    if path is not None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps(measured))


def recall(path: Path | None, probe: Probe) -> dict[str, float] | None:
    """What was kept, or None where there is nothing, or not a number for each matrix."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.keys() != probe.matrices.keys():
        return None
    numbers = all(isinstance(value, float) and 0 <= value < math.inf for value in found.values())
    return found if numbers else None


def probe_windows(source: Source, text: str | None = None) -> NDArray[np.int32]:
    """Pieces of a text (of the one to calibrate on unless given), ``(WINDOWS, CONTEXT)``, spread evenly over it."""
    from scrimp.text.tokenizer import load

    tokenizer = load(source.tokenizer)
    parsed, _ = models.build(source.config)
    bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
    context = min(CONTEXT, parsed.context)
    body, tokens = context - len(bos), tokenizer.encode(calibration_text() if text is None else text, add_bos=False)
    count = min(WINDOWS, len(tokens) // body)
    if count == 0:
        raise Refused(
            f"The calibration text that ships with scrimp has {len(tokens):,} tokens for this model: not {body:,}.",
            hint="use --format: without text no sensitivity can be measured",
        )
    begins = [at * (len(tokens) - body) // max(1, count - 1) for at in range(count)]
    return np.array([bos + tokens[at : at + body] for at in begins], np.int32)


def sample_error(stored: QTensor, formats: Mapping[str, Format], method_name: str) -> dict[str, float]:
    """The squared relative error ``‖w - ŵ‖² / ‖w‖²`` of each format, on some rows of the matrix."""
    rows = stored.shape[0]
    count = min(rows, max(SAMPLE_ROWS, rows // SAMPLE_ROWS))
    weight = np.ascontiguousarray(decode(stored)[np.linspace(0, rows - 1, count).astype(np.int64)])
    choose = method(method_name)
    return {name: squared_error(weight, choose(weight, format).dequantize()) for name, format in formats.items()}


def squared_error(weight: F32, rounded: F32) -> float:
    """``‖w - ŵ‖² / ‖w‖²``; 0 for a matrix of zeros."""
    norm = float(np.square(weight, dtype=np.float64).sum())
    return float(np.square(weight - rounded, dtype=np.float64).sum()) / norm if norm else 0.0
