"""``scrimp.compress``: a model, a wish and a directory → a smaller model there, and a report of what it cost."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scrimp import models
from scrimp.calibrate import windows as calibration_windows
from scrimp.calibrate.windows import Calibration, Prefix
from scrimp.errors import GoalNotMet, Refused, UsageError
from scrimp.measure.evaluate import Evaluation, evaluate
from scrimp.measure.memory import peak_bytes
from scrimp.measure.windows import cut, default_text, read_text
from scrimp.model import Model, open_model
from scrimp.progress import SILENT, Progress
from scrimp.quantize import plan as plans
from scrimp.quantize.apply import apply, calibrates
from scrimp.quantize.budget import fit
from scrimp.quantize.predict import Prediction, predict
from scrimp.quantize.walked import apply_walked, notes_of_walk, without_statistics
from scrimp.sizes import format_bytes, parse_bytes
from scrimp.sources import Source, open_source
from scrimp.sources.pull import locate
from scrimp.store import documents
from scrimp.store.layout import lay_out
from scrimp.store.open import directory_bytes
from scrimp.store.partial import SCRIMP_JSON, Partial, write_durably
from scrimp.store.verify import verify
from scrimp.tensors import QTensor

#: Tokens in a window of the loss, where the model's own context is not shorter.
CONTEXT = 512
#: No weight is stored in more.
MAX_BITS = 64


@dataclass(frozen=True, slots=True)
class TensorReport:
    """``error`` is ``‖w - ŵ‖ / ‖w‖`` against the source; ``output_error`` ``‖X (w - ŵ)ᵀ‖ / ‖X wᵀ‖`` over the inputs X
    of a calibration, None without one."""

    name: str
    format: str
    method: str
    error: float
    output_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in document.items() if value is not None}


@dataclass(frozen=True, slots=True)
class CompressReport:
    """What was done; ``seconds`` and ``rss_peak_bytes`` until the store was complete, before the loss was measured."""

    out: str
    file_bytes: int
    bits_per_weight: float  #: 8 · all bytes of the directory / parameters of the original
    seconds: float
    rss_peak_bytes: int
    tensors: tuple[TensorReport, ...]
    notes: tuple[str, ...]
    resumed: int  #: tensors that an earlier attempt had finished
    loss: Evaluation | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("tensors", "loss")
        }
        document["notes"] = list(self.notes)
        document["tensors"] = [tensor.to_json() for tensor in self.tensors]
        if self.loss is not None:
            document["loss"] = self.loss.to_json()
        return document


@dataclass(frozen=True, slots=True)
class Job:
    """A source and the plan made for it, before anything is written. Close the source when done."""

    source: Source
    plan: plans.Plan
    limit_bytes: int | None  #: what the files must not exceed
    calibration: Calibration | None = None  #: where a method of the plan wants Statistics

    @property
    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        walk = [] if self.calibration is None else notes_of_walk(self.plan, self.source, self.calibration)
        return [*notes_of(self.source, self.plan), *walk]

    def predict(self) -> Prediction:
        return predict(self.source, self.plan, file_bytes(self.source, self.plan), self.calibration)


def prepare(
    model: str | Path,
    *,
    format: str | None = None,
    bits: float | None = None,
    size: str | int | None = None,
    keep: bool = False,
    method: str = "rtn",
    rules: Sequence[str] = (),
    embedding: str | None = None,
    tokenizer: Path | None = None,
    calibrate: str | Path | None = None,
    calibrate_windows: int | None = None,
    calibrate_prefix: Prefix = "quantized",
) -> Job:
    """Open the model, make the plan and cut the text that calibrates its methods, where one of them wants that.

    Exactly one of ``format``, ``bits``, ``size`` and ``keep`` is the wish. ``calibrate`` is a text, a file of one, or
    None for the text that ships with scrimp.
    """
    wishes = {"--format": format is not None, "--bits": bits is not None, "--size": size is not None, "--keep": keep}
    if sum(wishes.values()) != 1:
        raise UsageError(f"Give exactly one of {', '.join(wishes)}.", hint="for example --format int4:g64")
    if keep and (rules or embedding):
        raise UsageError("--keep changes no format, so --rule and --embedding have no place.", hint="use --format")
    parsed = [plans.parse_rule(rule, method) for rule in rules]
    ends = plans.storable(embedding) if embedding is not None else None
    body = plans.storable(format) if format is not None else None
    if bits is not None and not 0 <= bits <= MAX_BITS:
        raise UsageError(f"{bits:g} bits per weight are out of range.", hint=f"0 … {MAX_BITS} are possible")
    size_bytes = parse_bytes(size) if isinstance(size, str) else size
    source = open_source(locate(str(model)), tokenizer=tokenizer)
    try:
        limit = None
        if keep:
            plan = plans.keep(source)
        elif body is not None:
            plan = plans.make(source, body, method_name=method, embedding=ends, rules=parsed)
        else:
            parameters = sum(int(np.prod(info.shape)) for info in source.tensors.values())
            limit = size_bytes if size_bytes is not None else int((bits or 0.0) * parameters / 8)
            overhead = _Overhead(source)
            plan = fit(source, limit, overhead.file_bytes, method_name=method, embedding=ends, rules=parsed)
        plan = without_statistics(plan, source)
        return Job(source, plan, limit, _calibration(source, plan, calibrate, calibrate_windows, calibrate_prefix))
    except BaseException:
        source.close()
        raise


def _calibration(
    source: Source, plan: plans.Plan, text: str | Path | None, windows: int | None, prefix: Prefix
) -> Calibration | None:
    """The windows, where the plan wants any. Refused when there is no text that this network could read."""
    method = next((choice.method for choice in plan.choices.values() if calibrates(choice)), None)
    if method is None:
        if text is not None or windows is not None:
            raise UsageError("No method of this plan looks at a text, so there is nothing to calibrate.",
                             hint="leave --calibrate out, or choose such a method with --method")  # fmt: skip
        return None
    if source.tokenizer.kind == "none":
        raise Refused(f"The method {method} reads a text through the network, and this model has no tokenizer.",
                      hint="--tokenizer names one for llama2.c files; --method rtn needs none")  # fmt: skip
    from scrimp.text.tokenizer import load

    parsed, _ = models.build(source.config)
    tokenizer = load(source.tokenizer, rows=source.config["vocab_size"])
    return calibration_windows.read(tokenizer, parsed.context, text, windows=windows, prefix=prefix)


def run(job: Job, out: Path, *, progress: Progress = SILENT, fresh: bool = False) -> CompressReport:
    """Write the store, open it again and verify it. The loss is not measured here."""
    began = time.perf_counter()
    source, plan, calibration = job.source, job.plan, job.calibration
    layout = lay_out(plan.shapes, {name: choice.format for name, choice in plan.choices.items()})
    fingerprint = documents.fingerprint(source, plan, "" if calibration is None else calibration.identity)
    with Partial(out, layout, fingerprint, fresh=fresh) as partial:
        resumed = len(partial.finished)

        def stored(name: str) -> QTensor:
            rows, cols = plan.shapes[name]
            return partial.read(name, plan.choices[name].format, (rows, cols))

        done = partial.finished.keys()
        steps = (
            apply(plan, source, done=done, progress=progress)
            if calibration is None
            else apply_walked(
                plan, source, calibration, done=done, stored=stored, directory=partial.out.parent, progress=progress
            )
        )
        for applied in steps:
            partial.write(applied.name, applied.tensor, applied.error, applied.output_error)
        if source.tokenizer.kind != "none":
            from scrimp.text.tokenizer import load

            partial.add(load(source.tokenizer).save)
        tensors = tuple(
            TensorReport(name, choice.format.name, choice.method, finished.error, finished.output_error)
            for name, choice in plan.choices.items()
            for finished in [partial.finished[name]]
        )
        checksums = {part: digest for name in plan.shapes for part, digest in partial.finished[name].checksums.items()}
        report = CompressReport(str(out), 0, 0.0, 0.0, 0, tensors, tuple(job.notes), resumed)
        texts = {
            "config.json": documents.config_json(source, plan),
            SCRIMP_JSON: documents.scrimp_json(
                source, plan, documents.source_hashes(source), checksums, report.notes, _record(report)
            ),
        }
        partial.complete(texts)
    verify_reopened(out)
    size_bytes = directory_bytes(out)
    if job.limit_bytes is not None and size_bytes > job.limit_bytes:
        raise GoalNotMet(f"{out} takes {size_bytes:,} bytes; {job.limit_bytes:,} were asked for.",
                         hint=f"ask for {format_bytes(job.limit_bytes - (size_bytes - job.limit_bytes))}")  # fmt: skip
    return replace(
        report,
        file_bytes=size_bytes,
        bits_per_weight=8 * size_bytes / plan.parameters,
        seconds=time.perf_counter() - began,
        rss_peak_bytes=peak_bytes(),
    )


def check_loss(job: Job, text: str | Path | None = None, *, max_tokens: int | None = None) -> None:
    """Refused, before the work and not after it, when the loss cannot be measured on this text."""
    from scrimp.text.tokenizer import load

    tokenizer = load(job.source.tokenizer)
    words = default_text() if text is None else read_text(text) if isinstance(text, Path) else text
    parsed, _ = models.build(job.source.config)
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    cut(tokenizer.encode(words, add_bos=False), min(CONTEXT, parsed.context), bos=bos, max_tokens=max_tokens)


def measure_loss(
    job: Job,
    report: CompressReport,
    text: str | Path | None = None,
    *,
    max_tokens: int | None = None,
    progress: Progress = SILENT,
) -> CompressReport:
    """Perplexity of the stored model and its divergence from the source, in the report and in ``scrimp.json``.

    Without a ``text`` the one that ships with scrimp is used.
    """
    out = Path(report.out)
    with open_model(out) as model:
        context = min(CONTEXT, model.context)
        reference = Model(job.source, context=context, arithmetic="f32")
        loss = evaluate(model, text, reference=reference, context=context, max_tokens=max_tokens, progress=progress)
    report = replace(report, loss=loss)
    record = (out / SCRIMP_JSON).read_text(encoding="utf-8")
    write_durably(out / SCRIMP_JSON, documents.with_report(record, _record(report)))
    size_bytes = directory_bytes(out)
    return replace(report, file_bytes=size_bytes, bits_per_weight=8 * size_bytes / job.plan.parameters)


def compress(
    model: str | Path,
    out: str | Path,
    *,
    format: str | None = None,
    bits: float | None = None,
    size: str | int | None = None,
    keep: bool = False,
    method: str = "rtn",
    rules: Sequence[str] = (),
    embedding: str | None = None,
    tokenizer: Path | None = None,
    text: str | Path | None = None,
    max_tokens: int | None = None,
    progress: Progress = SILENT,
    fresh: bool = False,
    calibrate: str | Path | None = None,
    calibrate_windows: int | None = None,
    calibrate_prefix: Prefix = "quantized",
) -> CompressReport:
    """Make ``model`` smaller into the directory ``out``; with a ``text``, measure what was lost on it.

    An interrupted call with the same arguments continues where it stopped; ``fresh`` starts over.
    """
    job = prepare(model, format=format, bits=bits, size=size, keep=keep, method=method, rules=rules,
                  embedding=embedding, tokenizer=tokenizer, calibrate=calibrate, calibrate_windows=calibrate_windows,
                  calibrate_prefix=calibrate_prefix)  # fmt: skip
    with job.source:
        report = run(job, Path(out), progress=progress, fresh=fresh)
        return report if text is None else measure_loss(job, report, text, max_tokens=max_tokens, progress=progress)


def verify_reopened(out: Path) -> None:
    """Read the store back: every part against its checksum, and a few logits, which must be finite."""
    verify(out)
    with open_model(out) as model:
        if not np.isfinite(model.logits([0, 1 % model.vocab_size])).all():
            raise Refused(
                f"{out} was written, but its logits are not finite.", hint="the source may be damaged: scrimp eval it"
            )


def file_bytes(source: Source, plan: plans.Plan) -> int:
    """Bytes the directory will take, or very little less: the record of the loss is of unknown length."""
    return _Overhead(source).file_bytes(plan)


class _Overhead:
    """The files beside the weights; the tokenizer's are written once to be measured."""

    def __init__(self, source: Source) -> None:
        self._source, self._tokenizer_bytes = source, 0
        if source.tokenizer.kind != "none":
            from scrimp.text.tokenizer import load

            with tempfile.TemporaryDirectory() as directory:
                load(source.tokenizer, rows=source.config["vocab_size"]).save(Path(directory))
                self._tokenizer_bytes = directory_bytes(Path(directory))

    def file_bytes(self, plan: plans.Plan) -> int:
        layout = lay_out(plan.shapes, {name: choice.format for name, choice in plan.choices.items()})
        walked = 1 / 3 if any(map(calibrates, plan.choices.values())) else None
        tensors = tuple(TensorReport(name, c.format.name, c.method, 1 / 3, walked) for name, c in plan.choices.items())
        report = CompressReport("", 0, 0.0, 0.0, 0, tensors, tuple(notes_of(self._source, plan)), 0)
        checksums = {part.name: "0" * 64 for parts in layout.parts.values() for part in parts}
        hashes = {"0" * 64: "0" * 64} if self._source.file_bytes <= documents.HASH_BYTES else None
        record = documents.scrimp_json(self._source, plan, hashes, checksums, report.notes, _record(report))
        config = documents.config_json(self._source, plan)
        return (
            layout.file_bytes
            + self._tokenizer_bytes
            + len(config.encode())
            + len(record.encode())
            + (_LOSS_BYTES if walked is None else _LOSS_BYTES + _WALK_BYTES)
        )


#: Room for the record of a loss in ``scrimp.json``.
_LOSS_BYTES = 2000
#: Room for what is said of a calibration.
_WALK_BYTES = 2000


def notes_of(source: Source, plan: plans.Plan) -> list[str]:
    """What a reader should know: conversions of the source, ragged groups, a missing tokenizer."""
    ragged = [
        name
        for name, choice in plan.choices.items()
        if plan.shapes[name][1] % choice.format.group(plan.shapes[name][1])
    ]
    found = list(source.notes)
    if ragged:
        found.append(f"the last group of a row is ragged: {len(ragged)} tensors such as {ragged[0]}")
    if source.tokenizer.kind == "none":
        found.append("the source has no tokenizer: only token ids can be run")
    return found


def _record(report: CompressReport) -> dict[str, Any]:
    document = report.to_json()
    return {name: document[name] for name in ("tensors", "loss") if name in document}
