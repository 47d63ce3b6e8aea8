"""``scrimp.compress``: a model, a wish and a directory → a smaller model there, and a report of what it cost."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scrimp import models
from scrimp.errors import GoalNotMet, Refused
from scrimp.measure.evaluate import evaluate
from scrimp.measure.memory import peak_bytes
from scrimp.measure.windows import cut, default_text, read_text
from scrimp.model import Model, open_model
from scrimp.models.attach import attach
from scrimp.progress import SILENT, Progress
from scrimp.quantize.apply import Applied, apply
from scrimp.quantize.as_made import logits_as_made
from scrimp.quantize.job import Job, kept_statistics, plan_layout, prepare
from scrimp.quantize.ranges import measure_ranges
from scrimp.quantize.report import CompressReport, TensorReport, record
from scrimp.quantize.walked import apply_walked, cut_off
from scrimp.quantize.wish import wish_of
from scrimp.sizes import format_bytes
from scrimp.store import documents
from scrimp.store.layout import lay_out_coded
from scrimp.store.open import directory_bytes
from scrimp.store.partial import DAMAGED, SCRIMP_JSON, Partial, write_durably
from scrimp.store.verify import verify
from scrimp.tensors import F32, QTensor

#: Tokens in a window of the loss, where the model's own context is not shorter.
CONTEXT = 512


def run(
    job: Job, out: Path, *, progress: Progress = SILENT, fresh: bool = False, statistics: Path | None = None
) -> CompressReport:
    """Write the store, and open it again before it takes its place: its logits must be those of what was made.

    The loss is not measured here. Statistics of an original prefix are looked for, and kept, in the directory
    ``statistics`` (calibrate/kept.py); the store is the same without.
    """
    began = time.perf_counter()
    source, plan, calibration = job.source, job.plan, job.calibration
    layout, cars = plan_layout(plan), plan.stored
    identity = "" if calibration is None else calibration.identity
    fingerprint = documents.fingerprint(source, plan, identity, packed=job.packed)
    with Partial(out, lay_out_coded(layout) if job.packed else layout, fingerprint, fresh=fresh) as partial:
        partial.forget(cut_off(plan, source, partial.finished))
        resumed = len(partial.finished)

        def stored(name: str) -> QTensor | F32:
            shape, format = cars[name].shape, cars[name].format
            return partial.read_vector(name) if format is None else partial.read(name, format, (shape[0], shape[1]))

        def matrix(name: str) -> QTensor:
            found = stored(name)
            assert isinstance(found, QTensor), name
            return found

        done = partial.finished.keys()
        steps = (
            apply(plan, source, done=done, progress=progress)
            if calibration is None
            else apply_walked(
                plan,
                source,
                calibration,
                done=done,
                stored=stored,
                directory=partial.out.parent,
                kept=kept_statistics(job, statistics),
                progress=progress,
            )
        )
        with ThreadPoolExecutor(1, thread_name_prefix="write") as writer:  # while the next tensor is worked on
            writing: Future[None] | None = None
            for applied in steps:
                if writing is not None:
                    writing.result()
                writing = writer.submit(_write, partial, applied)
                if calibration is not None:  # the block runs again with what is stored
                    writing.result()
            if writing is not None:
                writing.result()
        fixed = (
            None
            if job.ranges is None
            else measure_ranges(job.ranges, source, matrix, directory=partial.out.parent, progress=progress)
        )
        if source.tokenizer.kind != "none":
            from scrimp.text.tokenizer import load

            partial.add(load(source.tokenizer).save)
        tensors = tuple(
            TensorReport(name, choice.format.name, choice.method, ready.error, ready.output_error)
            for name, choice in plan.choices.items()
            for ready in [partial.finished[name]]
        )
        checksums = {part: digest for name in cars for part, digest in partial.finished[name].checksums.items()}
        told = [f"{name}: {note}" for name in plan.choices for note in partial.finished[name].notes]
        report = CompressReport(str(out), 0, 0.0, 0.0, 0, tensors, (*job.notes, *told), resumed)
        texts = {
            "config.json": documents.config_json(source, plan, fixed, packed=job.packed),
            SCRIMP_JSON: documents.scrimp_json(
                source,
                plan,
                documents.source_hashes(source),
                checksums,
                report.notes,
                record(report),
                packed=job.packed,
            ),
        }
        parsed, plain = models.build(source.config)
        program = attach(plain, {name: car.shape for name, car in cars.items()}, partial.read_vector)
        made = logits_as_made(program, parsed.context, stored)
        partial.complete(texts, check=lambda path: verify_reopened(path, *made))
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


def _write(partial: Partial, applied: Applied) -> None:
    for suffix, beside in applied.beside.items():  # first, so that a matrix that is done has all that it needs
        partial.write(f"{applied.name}.{suffix}", beside, 0.0)
    partial.write(applied.name, applied.tensor, applied.error, applied.output_error, applied.notes)


def check_loss(job: Job, text: str | Path | None = None, *, max_tokens: int | None = None) -> None:
    """Refused, before the work and not after it, when the loss cannot be measured on this text."""
    from scrimp.text.tokenizer import load

    if models.encodes(job.source.config):
        raise Refused(f"{job.source.path} is an encoder, which writes no text to measure a loss on.",
                      hint="leave the text out; scrimp embed shows what it makes of texts")  # fmt: skip
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
    before = (out / SCRIMP_JSON).read_text(encoding="utf-8")
    write_durably(out / SCRIMP_JSON, documents.with_report(before, record(report)))
    size_bytes = directory_bytes(out)
    return replace(report, file_bytes=size_bytes, bits_per_weight=8 * size_bytes / job.plan.parameters)


def compress(
    model: str | Path,
    out: str | Path,
    *,
    text: str | Path | None = None,
    max_tokens: int | None = None,
    progress: Progress = SILENT,
    fresh: bool = False,
    **wish: Any,
) -> CompressReport:
    """Make ``model`` smaller into the directory ``out``; with a ``text``, measure what was lost on it.

    ``wish`` are the fields of :class:`scrimp.quantize.wish.Wish`: ``format="int4:g64"``, ``size="60MB"``,
    ``method="gptq"``, … An interrupted call with the same arguments continues where it stopped; ``fresh`` starts over.
    """
    from scrimp.quantize.correct import within_goal

    wished = wish_of(wish)
    job = prepare(model, wished, progress=progress)
    with job.source:
        if text is not None and models.encodes(job.source.config):
            check_loss(job, text)
        report = run(job, Path(out), progress=progress, fresh=fresh)
        job, report = within_goal(model, wished, job, report, progress=progress)
        return report if text is None else measure_loss(job, report, text, max_tokens=max_tokens, progress=progress)


def verify_reopened(store: Path, tokens: list[int], made: F32) -> None:
    """Open the store as a user does: every part against its checksum, and the logits of ``tokens`` bit for bit against
    those of the tensors as they were ``made``. GoalNotMet where they differ, Refused where they are no numbers.
    """
    if not np.isfinite(made).all():
        raise Refused("The logits of what was made are not finite.", hint="the source may be damaged: scrimp eval it")
    try:
        verify(store)
        with open_model(store, arithmetic="int8") as model:
            found = model.engine.forward(tokens, 0, all_logits=True)
    except Refused as error:
        raise GoalNotMet(error.message, hint=DAMAGED) from None
    if not np.array_equal(found, made):
        apart = float(np.abs(found - made).max())
        raise GoalNotMet(f"{store}: reopened, its logits differ by up to {apart:g} from what was made.", hint=DAMAGED)
