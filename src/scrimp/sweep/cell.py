"""A cell: one way to compress the model of a sweep. It is compressed, measured, and thrown away; its numbers stay."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import scrimp
from scrimp.errors import ScrimpError
from scrimp.measure.evaluate import Evaluation, evaluate
from scrimp.progress import SILENT, Progress
from scrimp.quantize.compress import run
from scrimp.quantize.correct import within_goal
from scrimp.quantize.job import prepare
from scrimp.quantize.methods import method
from scrimp.quantize.wish import Wish
from scrimp.sources.json_object import read_json
from scrimp.store.partial import SCRIMP_JSON


@dataclass(frozen=True, slots=True)
class Setting:
    """What all cells of a sweep share."""

    model: str
    reference: str
    text: str | None = None  #: to measure on; None for the text that ships with scrimp
    context: int = 512
    max_tokens: int | None = None
    identity: str = ""  #: changes when the files of model or reference do


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    wish: Wish

    @property
    def prefix(self) -> str:
        """What blocks read while they are calibrated; "" where nothing is."""
        return self.wish.calibrate_prefix if calibrated(self.wish) else ""


@dataclass(frozen=True, slots=True)
class Loss:
    """What :class:`scrimp.measure.evaluate.Evaluation` found, in its words; NaN where an error is unknown."""

    tokens: int
    nll: float
    ppl: float
    ppl_se: float
    broken: bool
    kl_mean: float
    kl_se: float
    kl_median: float
    kl_p99: float
    same_top: float
    same_top_se: float
    protocol: str


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a cell: its numbers, or the reason why there are none."""

    name: str
    method: str
    prefix: str
    seconds: float  #: to plan, calibrate and compress; for an error, until it was known
    file_bytes: int = 0
    bits_per_weight: float = math.nan
    loss: Loss | None = None
    digest: str = ""  #: of all stored weights: equal only where every bit is
    error: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One level deep, with null for what is unknown."""
        document = {name: value for name, value in asdict(self).items() if name != "loss"}
        document |= {} if self.loss is None else asdict(self.loss)
        document["notes"] = list(self.notes)
        return {name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in document.items()}  # fmt: skip


def from_json(document: Mapping[str, Any]) -> Result:
    """The inverse of :meth:`Result.to_json`. ValueError, TypeError or KeyError where the document is something else."""
    kinds: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": _number, "bool": bool}
    own = {f.name: kinds[str(f.type)](document[f.name]) for f in fields(Result) if str(f.type) in kinds}
    loss = None
    if "kl_mean" in document:
        loss = Loss(**{f.name: kinds[str(f.type)](document[f.name]) for f in fields(Loss)})
    return Result(**own, loss=loss, notes=tuple(map(str, document["notes"])))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def calibrated(wish: Wish) -> bool:
    """Whether any method of a wish looks at a text."""
    names = [wish.method, *(rule.choice.method for rule in wish.parsed_rules)]
    return not wish.keep and any(method(name).calibrated for name in names)


def key_of(cell: Cell, setting: Setting) -> str:
    """One line that changes when the numbers would; the name of a cell is none of its business."""
    job = [scrimp.__version__, asdict(setting), asdict(cell.wish)]
    return hashlib.sha256(json.dumps(job, default=str, sort_keys=True).encode()).hexdigest()


def work(
    cell: Cell,
    setting: Setting,
    scratch: Path | None = None,
    *,
    statistics: Path | None = None,
    progress: Progress = SILENT,
) -> Result:
    """Compress and measure. Errors are results: one cell that cannot be made is no reason to lose the others.

    The store grows in ``scratch`` and continues there after an interruption; it is deleted when the result is known.
    Cells that are given the same directory ``statistics`` measure the original network once.
    """
    began = time.perf_counter()
    try:
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="scrimp-sweep-") as folder:
            out = Path(folder if scratch is None else scratch) / "store"
            found = _measured(cell, setting, out, statistics, progress)
    except ScrimpError as error:
        found = _failed(cell, began, str(error))
    except Exception as error:  # a full disk, no memory, or a defect of ours
        found = _failed(cell, began, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}")
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    return found


def _measured(cell: Cell, setting: Setting, out: Path, statistics: Path | None, progress: Progress) -> Result:
    began = time.perf_counter()
    job = prepare(setting.model, cell.wish, progress=progress)
    with job.source:
        report = run(job, out, progress=progress, statistics=statistics)
        job, report = within_goal(setting.model, cell.wish, job, report, progress=progress)
    seconds = time.perf_counter() - began
    evaluation = evaluate(
        out, setting.text, reference=setting.reference, context=setting.context, max_tokens=setting.max_tokens,
        progress=progress,
    )  # fmt: skip
    return Result(
        cell.name, cell.wish.method, cell.prefix, seconds, report.file_bytes, report.bits_per_weight,
        _loss(evaluation), _digest(out), notes=report.notes,
    )  # fmt: skip


def _loss(evaluation: Evaluation) -> Loss:
    document = evaluation.to_json()
    return Loss(**{field.name: document[field.name] for field in fields(Loss)})


def _digest(store: Path) -> str:
    checksums = read_json(store / SCRIMP_JSON)["checksums"]
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()


def _failed(cell: Cell, began: float, reason: str) -> Result:
    return Result(cell.name, cell.wish.method, cell.prefix, time.perf_counter() - began, error=reason)
