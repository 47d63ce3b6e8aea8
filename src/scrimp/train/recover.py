"""Recovery: a store in, a store of the same formats and bytes out, nearer to the original.

Import this only after ``torch_extra.require_torch()``.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import scrimp
from scrimp import models
from scrimp.errors import Refused
from scrimp.measure.memory import peak_bytes
from scrimp.models.attach import attach
from scrimp.models.sidecars import Beside, beside, owner
from scrimp.program import Program
from scrimp.progress import SILENT, Progress
from scrimp.quantize.as_made import logits_as_made
from scrimp.quantize.compress import check_loss, measure_loss, verify_reopened
from scrimp.quantize.decoded import decode, relative_error
from scrimp.quantize.job import Job, plan_layout
from scrimp.quantize.plan import Choice, Plan
from scrimp.quantize.quantized import SideCar
from scrimp.quantize.report import CompressReport, Recovery, TensorReport, record
from scrimp.sources import Source
from scrimp.sources.catalogue import cache_directory
from scrimp.sources.json_object import read_json
from scrimp.store import documents
from scrimp.store.layout import CodedLayout, Layout, lay_out_coded
from scrimp.store.open import ScrimpSource, directory_bytes, open_store
from scrimp.store.partial import SCRIMP_JSON, Partial, check_out
from scrimp.tensors import F32, QTensor
from scrimp.text.tokenizer import load as load_tokenizer
from scrimp.train import checkpoint, lessons, own_text
from scrimp.train.adam import Adam
from scrimp.train.beside import Read, together
from scrimp.train.block_by_block import learn_blocks
from scrimp.train.end_to_end import Course, learn
from scrimp.train.lessons import Lessons
from scrimp.train.original import open_original
from scrimp.train.settings import Settings
from scrimp.train.student import load as load_student
from scrimp.train.teacher import Teacher
from scrimp.train.torch_extra import has_fast_halves

#: What is added to a matrix's method in the plan of a store that was recovered.
SUFFIX = "+recover"


def recover(
    store: str | Path,
    out: str | Path,
    settings: Settings | None = None,
    *,
    reference: str | None = None,
    calibrate: str | Path | None = None,
    text: str | Path | None = None,
    max_tokens: int | None = None,
    measure: bool = True,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> CompressReport:
    """Learn what costs no bytes (``settings`` say what, and for how long) and write the store to ``out``.

    ``calibrate`` is the text that is learned from (a string, a file, or None for the text that ships with scrimp),
    ``text`` the one that the loss is measured on. Where the held-out KL doesn't fall, ``out`` holds what ``store`` does
    and the report says so. An interrupted call with the same arguments goes on where it was; ``fresh`` starts over.
    """
    with open_small(Path(store)) as small:
        original, odd = open_original(small, reference)
        with original:
            chosen = settings or Settings()
            if measure:
                check_loss(Job(small, _plan(small, gained=False), None), text, max_tokens=max_tokens)
            report = recover_store(
                small, original, Path(out), chosen, calibrate=calibrate, notes=odd, fresh=fresh, progress=progress
            )
            if not measure:
                return report
            job = Job(original, _plan(small, gained=False), None)
            return measure_loss(job, report, text, max_tokens=max_tokens, progress=progress)


def recover_store(
    small: ScrimpSource,
    original: Source,
    out: Path,
    settings: Settings,
    *,
    calibrate: str | Path | None = None,
    notes: Sequence[str] = (),
    fresh: bool = False,
    progress: Progress = SILENT,
) -> CompressReport:
    """As :func:`recover`, of an open store and its original; the loss is not measured."""
    began = time.perf_counter()
    check_out(out)
    before = _noted(small)
    read = _lessons(small, original, calibrate, settings, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    course = _course(small, original, read, settings, out, fresh=fresh, began=began, progress=progress)
    recovery = _told(course, settings)
    said = (*before, *notes, *read.notes, *_sentences(recovery))
    report = CompressReport(str(out), 0, 0.0, 0.0, 0, (), said, 0, recovery=recovery)
    report = _write(small, original, _plan(small, gained=recovery.gained), course.best, report)
    checkpoint.checkpoint_of(out).unlink(missing_ok=True)
    return replace(report, seconds=time.perf_counter() - began, rss_peak_bytes=peak_bytes())


def open_small(path: Path) -> ScrimpSource:
    """A store that can be recovered: Refused when it is none, or has no tokenizer."""
    if not (path / SCRIMP_JSON).is_file():
        raise Refused(f"{path} is no compressed model.", hint="scrimp compress MODEL -o DIR makes one")
    small = open_store(path)
    if small.input_scales:
        small.close()
        raise Refused(f"{path} has fixed ranges of activations, which a recovery would not learn with.",
                      hint="recover a store without them")  # fmt: skip
    if small.tokenizer.kind == "none":
        small.close()
        models.architecture(small.config.get("model_type"))  # Refused where it sees pictures
        raise Refused(f"{path} has no tokenizer, so no text can be run through it.", hint="recovery needs text")
    return small


def _lessons(
    small: Source, original: Source, calibrate: str | Path | None, settings: Settings, progress: Progress
) -> Lessons:
    """The text, and what the original writes besides."""
    parsed, _ = models.build(small.config)
    tokenizer = load_tokenizer(small.tokenizer, rows=parsed.vocab)
    read = lessons.read(tokenizer, parsed.context, calibrate)
    count, length = settings.windows_to_write(has_text=calibrate is not None), read.windows.shape[1]
    if not count:
        return read
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    shapes = {name: info.shape for name, info in original.tensors.items()}
    job = f"{count} windows of {length}, seed {settings.seed}, bos {bos}"
    path = cache_directory() / "written" / f"{documents.fingerprint(original, Plan(shapes, {}), job)}.npy"
    written = own_text.recalled(path, (count, length), parsed.vocab)
    if written is None:
        progress.start("writing text", count * length)
        written = own_text.write(
            original, count, length, bos=bos, seed=settings.seed, seconds=settings.writing_s, tick=progress.advance
        )
        progress.finish()
        own_text.remember(path, written)
    return lessons.read(tokenizer, parsed.context, calibrate, written=written)


def _course(
    small: ScrimpSource, original: Source, read: Lessons, settings: Settings, out: Path, *, fresh: bool, began: float,
    progress: Progress,
) -> Course:  # fmt: skip
    """Run, from the checkpoint on where there is one of this very job. Minutes since ``began`` are minutes gone."""
    program, sidecars = program_of_store(small)
    codes_of = original if settings.codes else None
    student = load_student(small, program, sidecars, original=codes_of, ends=settings.ends, half=has_fast_halves())
    optimizer = Adam(student.parameters())
    path, job = checkpoint.checkpoint_of(out), fingerprint(small, original, read, settings)
    if fresh:
        path.unlink(missing_ok=True)
    course = checkpoint.resume(path, job, student, optimizer)
    teacher = Teacher(original, read.windows, out.parent)

    def begin() -> None:
        learn_blocks(student, original, read, settings, directory=out.parent, progress=progress)

    gone = (time.perf_counter() - began) / 60
    left = replace(settings, minutes=max(settings.minutes / 2, settings.minutes - gone))
    return learn(
        student, teacher, read, left, optimizer, course, progress=progress,
        begin=begin if settings.block_steps else None,
        save=lambda now: checkpoint.save(path, job, student, optimizer, now),
    )  # fmt: skip


def program_of_store(small: ScrimpSource) -> tuple[Program, dict[str, Beside]]:
    """The Program with its side-cars attached, and what stands beside each matrix."""
    _, plain = models.build(small.config)
    shapes = {name: info.shape for name, info in small.tensors.items()}

    def read(name: str) -> F32:
        return np.asarray(small.read(name), np.float32)

    return attach(plain, shapes, read), beside(plain, shapes, read)


def fingerprint(small: ScrimpSource, original: Source, read: Lessons, settings: Settings) -> str:
    """Changes when the result would."""
    parts = {
        "store": read_json(small.path / SCRIMP_JSON).get("checksums"), "original": documents.source_hashes(original),
        "text": read.identity, "settings": settings.to_json(), "scrimp": scrimp.__version__,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _told(course: Course, settings: Settings) -> Recovery:
    curve = tuple((point.step, point.seconds, point.kl) for point in course.curve)
    best = course.lowest
    return Recovery(curve, course.curve[0].kl, best.kl, best.step, course.ended, settings.to_json())


def _sentences(recovery: Recovery) -> list[str]:
    found = [f"recovery ended early: {recovery.ended}"] if recovery.ended else []
    steps = recovery.curve[-1][0]
    if recovery.gained:
        return [*found, f"recovery: held-out KL {recovery.before:.4f} → {recovery.after:.4f} in {steps:,} steps"]
    return [*found, f"recovery gained nothing in {steps:,} steps: the model stayed as it was"]


def _noted(small: ScrimpSource) -> tuple[str, ...]:
    """What the store's record remarks; Refused where that is no list of lines."""
    found = read_json(small.path / SCRIMP_JSON).get("notes", [])
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise Refused(f"{small.path / SCRIMP_JSON}: its notes are no list of lines.", hint="the file is damaged")
    return tuple(found)


def _plan(small: ScrimpSource, *, gained: bool) -> Plan:
    """The store's own plan; its methods are those of its record."""
    written = read_json(small.path / SCRIMP_JSON).get("plan")
    plan: Mapping[str, object] = written if isinstance(written, dict) else {}
    choices: dict[str, Choice] = {}
    sidecars: dict[str, dict[str, SideCar]] = {}
    for name, info in small.tensors.items():
        if (matrix := owner(name)) is not None:
            car = SideCar(info.shape, small.formats.get(name))
            sidecars.setdefault(matrix, {})[name.removeprefix(f"{matrix}.")] = car
    for name, format in small.formats.items():
        if owner(name) is not None:
            continue
        method = str(plan.get(name, "unknown")).removeprefix(format.name).lstrip("@")[:80]
        added = SUFFIX if gained and not method.endswith(SUFFIX) else ""
        choices[name] = Choice(format, method + added)
    return Plan({name: info.shape for name, info in small.tensors.items() if owner(name) is None}, choices, sidecars)


def _write(
    small: ScrimpSource, original: Source, plan: Plan, tensors: Mapping[str, QTensor | F32], report: CompressReport
) -> CompressReport:
    out, (program, sidecars) = Path(report.out), program_of_store(small)
    plain = plan_layout(plan)
    layout: Layout | CodedLayout = lay_out_coded(plain) if small.packed else plain

    def read(name: str) -> QTensor | F32:
        return tensors[name] if name in tensors else small.read(name)  # what a Program has as numbers of its own

    with Partial(out, layout, "a recovery writes all at once", fresh=True) as partial:
        for name in plan.stored:
            error = _error(original, name, read(name), sidecars.get(name), read)
            partial.write(name, read(name), error)
        partial.add(load_tokenizer(small.tokenizer).save)
        found = tuple(
            TensorReport(name, choice.format.name, choice.method, partial.finished[name].error)
            for name, choice in plan.choices.items()
        )
        report = replace(report, tensors=found)
        checksums = {part: digest for name in plan.stored for part, digest in partial.finished[name].checksums.items()}
        hashes = documents.source_hashes(original)
        told = record(report)
        texts = {
            "config.json": documents.config_json(small, plan, packed=small.packed),
            SCRIMP_JSON: documents.scrimp_json(
                original, plan, hashes, checksums, report.notes, told, packed=small.packed
            ),
        }
        parsed, _ = models.build(small.config)
        made = logits_as_made(program, parsed.context, read)
        partial.complete(texts, check=lambda path: verify_reopened(path, *made))
    size_bytes = directory_bytes(out)
    return replace(report, file_bytes=size_bytes, bits_per_weight=8 * size_bytes / plan.parameters)


def _error(
    original: Source,
    name: str,
    tensor: QTensor | F32,
    beside: Beside | None,
    read: Read,
) -> float:
    """``‖w - ŵ‖ / ‖w‖`` of a matrix, with what stands beside it; NaN, which is written as null, where the original has
    no such matrix."""
    weight = original.read(name) if name in original.tensors else None
    if isinstance(weight, QTensor) and isinstance(tensor, QTensor) and weight.shape == tensor.shape:
        exact = decode(weight)
        if beside is None:
            return relative_error(exact, tensor)
        return float(np.linalg.norm(exact - together(name, beside, read)) / (np.linalg.norm(exact) or 1.0))
    return 0.0 if isinstance(tensor, np.ndarray) else float("nan")
