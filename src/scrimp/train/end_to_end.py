"""End to end: what costs no bytes follows the gradient of KL(original ‖ student) on the original's own text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrimp.progress import SILENT, Progress
from scrimp.tensors import F32, QTensor
from scrimp.train.adam import Adam
from scrimp.train.executor import run
from scrimp.train.lessons import Lessons
from scrimp.train.next_token_kl import next_token_kl
from scrimp.train.settings import Settings, rate_at_width, share_of_rate
from scrimp.train.student import Student
from scrimp.train.teacher import Teacher

#: How often the held-out windows are measured in a run, and how often in a row without gain before it ends.
EVALUATIONS, PATIENCE = 20, 12
#: Share of the time that measuring may take.
MEASURING = 0.1


@dataclass(frozen=True, slots=True)
class Point:
    """Held-out KL in nats after so many steps and seconds."""

    step: int
    seconds: float
    kl: float


@dataclass(slots=True)
class Course:
    """Where a run is: all that a checkpoint must hold besides what learns and Adam's memory of it."""

    step: int = 0
    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)
    best: dict[str, QTensor | F32] = field(default_factory=dict)  #: the tensors of the lowest point
    ended: str = ""  #: why it ended before its time

    @property
    def lowest(self) -> Point:
        return min(self.curve, key=lambda point: point.kl)


def learn(
    student: Student,
    teacher: Teacher,
    lessons: Lessons,
    settings: Settings,
    optimizer: Adam,
    course: Course,
    *,
    begin: Callable[[], None] | None = None,
    save: Callable[[Course], None] = lambda course: None,
    progress: Progress = SILENT,
) -> Course:
    """Run to the end of the settings' steps or minutes; ``save`` is called after each measurement.

    ``begin`` is what else shall be learned first, once the state of things was measured.

    The best point, with its tensors, is in the course that is returned; the student itself is where the run ended.
    """
    clock, slower = _Clock(settings, course), rate_at_width(student.network.program.widths[student.hidden])
    progress.start("recovering", 1.0)
    shown = 0.0
    while not course.ended:
        done = clock.done()
        measured = bool(course.curve) and course.curve[-1].step == course.step
        if begin is not None and len(course.curve) == 1 and not course.step:
            begin()
            _measure(student, teacher, lessons, course, clock)
            save(course)
        elif not measured and (done >= clock.due or not course.curve):
            _measure(student, teacher, lessons, course, clock)
            save(course)
        elif done >= 1:
            break
        elif _step(student, teacher, lessons, settings, optimizer, course.step, slower * share_of_rate(done)):
            course.step += 1
        else:
            course.ended = f"the loss was not finite at step {course.step}"
        course.seconds = clock.seconds()
        progress.advance(clock.done() - shown, _told(course))
        shown = clock.done()
    progress.finish()
    return course


class _Clock:
    """How much of a run is over: by steps where their number was given, else by time, interruptions not counted."""

    def __init__(self, settings: Settings, course: Course) -> None:
        self._settings, self._course = settings, course
        self._began = time.monotonic() - course.seconds
        self.due = 0.0  #: the share of the run that is over when the next measurement is wanted
        if course.curve:
            self.wait(0.0)

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def done(self) -> float:
        return self._share(self._course.step, self.seconds())

    def wait(self, took_s: float) -> None:
        """A measurement was made and took so long: measuring shall not take more than its share of the time."""
        last = self._course.curve[-1]
        pause = 0.0 if self._settings.steps is not None else self._share(0, took_s) / MEASURING
        self.due = min(1.0, self._share(last.step, last.seconds) + max(1 / EVALUATIONS, pause))

    def _share(self, step: int, seconds: float) -> float:
        if self._settings.steps is not None:
            return step / self._settings.steps
        return min(1.0, seconds / (60 * self._settings.minutes))


def _step(
    student: Student,
    teacher: Teacher,
    lessons: Lessons,
    settings: Settings,
    optimizer: Adam,
    step: int,
    share: float,
) -> bool:
    """One step of Adam; False, and nothing changed, when the loss or a gradient is not finite."""
    optimizer.forget_gradients()
    chosen = batch(lessons.learned, settings, step)
    total = 0.0
    for window in chosen:
        loss = divergence(student, teacher, lessons, window[None]) / len(chosen)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    if not all(map(math.isfinite, (total, *optimizer.norms().values()))):
        return False
    optimizer.step(step + 1, {kind: rate * share for kind, rate in settings.rates.items()})
    student.settle()
    return True


def batch(learned: NDArray[np.int64], settings: Settings, step: int) -> NDArray[np.int64]:
    """The windows of a step: every window once per round, each round in an order of its own."""
    count = min(settings.windows_per_step, len(learned))
    found = []
    for at in range(step * count, (step + 1) * count):
        round_, place = divmod(at, len(learned))
        found.append(learned[np.random.default_rng((settings.seed, round_)).permutation(len(learned))[place]])
    return np.array(found)


def divergence(student: Student, teacher: Teacher, lessons: Lessons, chosen: NDArray[np.int64]) -> Tensor:
    """Mean KL of the next token over some windows, nats."""
    tokens = torch.from_numpy(lessons.windows[chosen].astype(np.int64))
    (hidden,) = run(student.network, tokens, (student.hidden,), last=-1)
    return next_token_kl(hidden, student.head, teacher.hidden(chosen), teacher.head)


def held_out_kl(student: Student, teacher: Teacher, lessons: Lessons) -> float:
    with torch.no_grad():
        found = [float(divergence(student, teacher, lessons, window[None])) for window in lessons.held_out]
    return max(0.0, float(np.mean(found)))


def _measure(student: Student, teacher: Teacher, lessons: Lessons, course: Course, clock: _Clock) -> None:
    began = clock.seconds()
    kl = held_out_kl(student, teacher, lessons)
    if not course.curve or kl < course.lowest.kl:
        course.best = student.tensors()
    course.seconds = clock.seconds()
    course.curve.append(Point(course.step, course.seconds, kl))
    clock.wait(course.seconds - began)
    if len(course.curve) - 1 - course.curve.index(course.lowest) >= PATIENCE:
        course.ended = f"{PATIENCE} measurements in a row without gain"


def _told(course: Course) -> str:
    if not course.curve:
        return ""
    return f"held-out KL {course.curve[0].kl:.4f} → {course.curve[-1].kl:.4f}"
