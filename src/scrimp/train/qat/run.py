"""``scrimp train``: a recipe → pictures → a Net that is trained → a store, checked in integers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.integer import lower
from scrimp.integer.at_rest import Tensors
from scrimp.integer.engine import IntegerEngine
from scrimp.integer.program import IntegerProgram
from scrimp.measure.train_report import Row, TrainReport, layers, multiplications
from scrimp.models.cnn import Image, Net
from scrimp.pictures import Pictures, load
from scrimp.progress import SILENT, Progress
from scrimp.sizes import format_bytes
from scrimp.store.net import write_net
from scrimp.store.open import directory_bytes
from scrimp.tensors import QTensor
from scrimp.train.qat import checkpoint, nets
from scrimp.train.qat.augment import Augmenter
from scrimp.train.qat.course import (
    AT_REST,
    Course,
    Epoch,
    Lessons,
    batches_of,
    begin,
    enter,
    learn,
    predict,
    rest,
    seen,
)
from scrimp.train.qat.recipe import Recipe
from scrimp.train.qat.stored import teacher
from scrimp.train.qat.student import Student

#: Pictures between two ticks of the progress of the check in integers.
_AT_ONCE = 512
#: Batches that a forecast is made from.
_FORECAST = 3


@dataclass(frozen=True, slots=True)
class Job:
    """All that is needed to train, read and checked."""

    recipe: Recipe
    net: Net
    lessons: Lessons


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take: measured on a few batches of learning and one of testing, nothing kept of them."""

    parameters: int
    multiplications: int
    weight_bytes: int
    train_pictures: int
    test_pictures: int
    epochs: int
    seconds_per_epoch: float
    operations: tuple[tuple[str, str, int], ...]  #: name, format, stored bytes
    refusal: str  #: why it will not run in integers; empty where it will


def prepare(recipe: Recipe, directory: Path | None = None) -> Job:
    """Read pictures and teacher; ``directory`` of the data unless the recipe names one."""
    data = recipe.data
    train = load(data.spec("train"), data.directory or directory)
    test = load(data.spec("test"), data.directory or directory)
    if data.first is not None:
        train = train.first(data.first)
    test = test.resized(*data.size) if data.size else test
    _, height, width, channels = test.images.shape
    net = nets.build(recipe.model, Image(height, width, channels), test.names, recipe.sizes)
    _check_memory(net, recipe.schedule.batch)
    for glob in (*recipe.layers, *recipe.schedule.freeze):
        _check_glob(glob, net)
    taught = teacher(recipe.distillation.teacher, net) if recipe.distillation else None
    if recipe.schedule.batch > len(train):
        raise UsageError(f"Batches of {recipe.schedule.batch:,} from {len(train):,} pictures.",
                          hint="schedule.batch must be smaller")  # fmt: skip
    fill = max(0, net.pixels.zero)
    return Job(recipe, net, Lessons(train, test, Augmenter(recipe.augmentation, fill, data.size), taught))


def train(
    job: Job,
    out: Path,
    *,
    fresh: bool = False,
    progress: Progress = SILENT,
    told: Callable[[int, Epoch], None] = lambda epoch, row: None,
    noted: Callable[[str], None] = lambda words: None,
) -> TrainReport:
    """Train from the checkpoint on where there is one of this job, and write ``out``; ``told`` after each epoch.

    ``noted`` is told once whether a checkpoint was found, and what became of it.
    """
    with checkpoint.alone(out):
        return _train(job, out, fresh, progress, told, noted)


def _train(
    job: Job,
    out: Path,
    fresh: bool,
    progress: Progress,
    told: Callable[[int, Epoch], None],
    noted: Callable[[str], None],
) -> TrainReport:
    recipe, path = job.recipe, checkpoint.checkpoint_of(out)
    if fresh:
        path.unlink(missing_ok=True)
    student = Student(job.net, recipe.seed)
    course, key = begin(recipe, student), checkpoint.fingerprint(recipe, job.lessons)
    if not checkpoint.resume(path, key, recipe, course):
        kept = path.replace(path.with_name(f"{path.name}.old"))
        noted(f"the checkpoint is of another recipe, other pictures or another teacher: this training begins anew, and "
              f"it is kept as {kept}")  # fmt: skip
    elif course.curve:
        noted(f"going on after epoch {len(course.curve)} of {recipe.schedule.epochs}")

    def save(course: Course) -> None:
        checkpoint.save(path, key, course)
        told(len(course.curve), course.curve[-1])

    learn(recipe, course, job.lessons, save=save, progress=progress)
    student.eval()
    tensors = student.tensors()
    report = _report(job, out, course, tensors, progress)
    write_net(out, job.net, tensors, provenance={"recipe": dict(recipe.document), "data": recipe.data.set},
              method="trained", notes=report.notes, report=report.to_json())  # fmt: skip
    path.unlink(missing_ok=True)
    return _weighed(report, out)


def forecast(job: Job) -> Forecast:
    """Of the training of a job as it is after warm-up."""
    recipe = job.recipe
    student = Student(job.net, recipe.seed)
    course = begin(recipe, student)
    enter(recipe, course, recipe.schedule.epochs - 1)
    batches = batches_of(recipe, len(job.lessons.train))
    _timed(job, 1)  # so that nothing is loaded later
    learning, resting = _timed(job, few := min(batches, _FORECAST))
    seconds = (learning * batches + resting * min(batches, AT_REST)) / few
    began, judged = time.perf_counter(), job.lessons.test.first(_AT_ONCE)
    predict(student, judged)
    seconds += (time.perf_counter() - began) / len(judged) * len(job.lessons.test)
    tensors = student.tensors()
    stored = [(node.name, recipe.of(node.name).spelled, _bytes(tensors[f"{node.name}.weight"]))
              for node in job.net.nodes if node.multiplies]  # fmt: skip
    return Forecast(_count(job.net), multiplications(job.net), sum(row[2] for row in stored), len(job.lessons.train),
                    len(job.lessons.test), recipe.schedule.epochs, seconds, tuple(stored),
                    refusal(job.net, {name: np.ones(1, np.float32) if name.endswith(".step") else tensor
                                      for name, tensor in tensors.items()}))  # fmt: skip


def refusal(net: Net, tensors: Tensors) -> str:
    """Why a network does not lower; empty where it does."""
    try:
        lower.lower(net, tensors)
    except Refused as error:
        return error.message
    return ""


def _timed(job: Job, batches: int) -> tuple[float, float]:
    """Seconds of learning some batches in the formats of the last epoch, and of taking norms from them; with a network
    that is thrown away."""
    size = job.recipe.schedule.batch
    last = replace(job.recipe, schedule=replace(job.recipe.schedule, epochs=1, float_epochs=0, progressive=()))
    lessons = replace(job.lessons, train=job.lessons.train.first(batches * size), test=job.lessons.test.first(2))
    course = begin(last, Student(job.net, job.recipe.seed))
    began = time.perf_counter()
    learn(last, course, lessons, save=lambda _: None)
    learned = time.perf_counter()
    rest(course.student, seen(last, course, lessons, 0))
    resting = time.perf_counter() - learned
    return max(0.0, learned - began - resting), resting


def _report(job: Job, out: Path, course: Course, tensors: Tensors, progress: Progress) -> TrainReport:
    test, notes = job.lessons.test, list[str]()
    ours = predict(course.student, test)
    integer, same = None, 0
    if job.recipe.activations != "static":
        notes.append(
            f"trained with {job.recipe.activations} activations; their steps in the store are the largest seen"
        )
    try:
        program = lower.lower(job.net, tensors)
    except Refused as error:
        notes.append(f"it does not run in integers: {error.message}")
    else:
        theirs = _in_integers(program, test, progress)
        integer, same = float((theirs == test.labels).mean()), int((theirs == ours).sum())
    found = layers(job.net, tensors)
    return TrainReport(
        out=str(out), recipe=job.recipe.document, parameters=_count(job.net),
        multiplications=multiplications(job.net), weight_bytes=sum(layer.bytes for layer in found),
        train_pictures=len(job.lessons.train), test_pictures=len(test),
        accuracy=float((ours == test.labels).mean()), integer=integer, same=same, file_bytes=0,
        seconds=sum(epoch.seconds for epoch in course.curve),
        curve=tuple(Row(*astuple(epoch)) for epoch in course.curve), layers=found, notes=tuple(notes),
    )  # fmt: skip


def _in_integers(program: IntegerProgram, pictures: Pictures, progress: Progress) -> NDArray[np.int64]:
    """The class with the largest logit, by the engine."""
    engine, found = IntegerEngine(program), []
    progress.start("in integers", len(pictures))
    for at in range(0, len(pictures), _AT_ONCE):
        found.append(engine.logits(pictures.images[at : at + _AT_ONCE]).argmax(axis=1))
        progress.advance(len(found[-1]))
    progress.finish()
    return np.concatenate(found)


def _weighed(report: TrainReport, out: Path) -> TrainReport:
    return replace(report, file_bytes=directory_bytes(out))


def _bytes(tensor: QTensor | NDArray[np.float32]) -> int:
    return int(tensor.nbytes)


def _count(net: Net) -> int:
    return sum(int(np.prod(shape)) for name, shape in net.tensors().items() if not name.endswith(".step"))


def _check_memory(net: Net, batch: int) -> None:
    """UsageError where parameters with gradient and two memories, and what every operation makes of a batch, in
    float32, do not fit into this machine: a lower bound."""
    numbers = 4 * _count(net) + batch * sum(image.size for image in net.shapes().values())
    if 4 * numbers > (there := _memory_bytes()):
        raise UsageError(f"Training this takes {format_bytes(4 * numbers)} of memory and more; here are "
                         f"{format_bytes(there)}.", hint="fewer channels, or a smaller schedule.batch")  # fmt: skip


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _check_glob(glob: str, net: Net) -> None:
    names = [node.name for node in net.nodes if node.multiplies]
    if not any(fnmatchcase(name, glob) for name in names):
        raise UsageError(f"No operation is called '{glob[:40]}'.", hint=f"there are {', '.join(names[:12])}")
