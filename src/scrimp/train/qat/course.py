"""The course of a training: epochs, each the same however often the run was interrupted before it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scrimp.errors import ScrimpError
from scrimp.pictures import Pictures
from scrimp.progress import SILENT, Progress
from scrimp.train.qat.augment import Augmenter
from scrimp.train.qat.optimizer import Optimizer
from scrimp.train.qat.recipe import Recipe, Schedule
from scrimp.train.qat.student import Student, numbers

#: Pictures that are looked at together where nothing learns.
_AT_ONCE = 500
_PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16}
#: What is left of the rate at the end.
_LAST = 0.001
#: Batches from which means and variances of a network at rest are taken anew after an epoch.
AT_REST = 32


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch was, and what it came to: ``correct`` of the test pictures right."""

    loss: float
    train_accuracy: float  #: of the augmented pictures, while they were learned
    test_accuracy: float
    rate: float  #: at its end
    seconds: float
    weights: str  #: how most of them were rounded


@dataclass(slots=True)
class Course:
    """Where a run is: ``curve`` holds the epochs that are over."""

    student: Student
    optimizer: Optimizer
    curve: list[Epoch] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """What is learned from, in the set's own size, and what is judged by, in the network's."""

    train: Pictures
    test: Pictures
    augmenter: Augmenter
    teacher: Student | None = None


def begin(recipe: Recipe, student: Student) -> Course:
    """Before the first epoch."""
    return Course(student, Optimizer(recipe.schedule.optimizer, recipe.schedule.weight_decay))


def learn(
    recipe: Recipe,
    course: Course,
    lessons: Lessons,
    *,
    save: Callable[[Course], None],
    progress: Progress = SILENT,
) -> None:
    """The epochs that are left; ``save`` after each."""
    epochs, batches = recipe.schedule.epochs, batches_of(recipe, len(lessons.train))
    progress.start("training", (epochs - len(course.curve)) * batches)
    note = ""
    for epoch in range(len(course.curve), epochs):
        began = time.perf_counter()
        enter(recipe, course, epoch)
        loss = right = 0.0
        parameters = dict(course.student.named_parameters())
        course.student.train()
        for at, (x, labels) in enumerate(_batches(recipe, course, lessons, epoch)):
            logits = course.student(x)
            found = _loss(recipe, lessons, x, logits, labels)
            found.backward()  # type: ignore[no-untyped-call]
            course.optimizer.step(parameters, rate_at(recipe.schedule, epoch + at / batches))
            course.student.settle()
            loss += float(found.detach())
            right += float((logits.detach().argmax(dim=1) == labels).float().mean())
            progress.advance(1, f"epoch {epoch + 1}/{epochs}{note}")
        if not math.isfinite(loss):
            raise ScrimpError(f"The training diverged in epoch {epoch + 1}: its loss is {loss / batches:.3g}.",
                              hint="a smaller schedule.rate may help; what was learned before is kept")  # fmt: skip
        rest(course.student, seen(recipe, course, lessons, epoch))
        accuracy = float((predict(course.student, lessons.test) == lessons.test.labels).mean())
        rate, weights = rate_at(recipe.schedule, epoch + 1), recipe.at(recipe_body(course.student), epoch).spelled
        course.curve.append(
            Epoch(loss / batches, right / batches, accuracy, rate, time.perf_counter() - began, weights)
        )
        note = f", test {100 * accuracy:.2f} %"
        save(course)
    progress.finish()


def enter(recipe: Recipe, course: Course, epoch: int) -> None:
    """Formats, activations and what is frozen, as an epoch has them."""
    student = course.student
    ways = {name: recipe.at(name, epoch) for name in student.products}
    warming = epoch < recipe.schedule.float_epochs
    student.store_as({name: (way.format, way.rule) for name, way in ways.items()},
                     "float" if warming else recipe.activations)  # fmt: skip
    for name, weight in student.weights.items():
        weight.hold(recipe.frozen(name, epoch))
    student.precision = _PRECISIONS[recipe.schedule.precision]
    course.optimizer.follow(dict(student.named_parameters()))


def seen(recipe: Recipe, course: Course, lessons: Lessons, epoch: int) -> Iterator[Tensor]:
    """The pictures of an epoch, as numbers, batch by batch."""
    return (x for x, _ in _batches(recipe, course, lessons, epoch))


def rest(student: Student, batches: Iterable[Tensor]) -> None:
    """Means and variances of batch norms, from some batches with the weights as they are.

    Weights of few bits jump between levels to the end, and what a running mean remembers of them is not the network:
    ResNet-8 with ternary weights, CIFAR-10 from JPEG, epoch 42 of 45: 77.2 % with running means, 80.3 % after this.

    Source
        Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training", arXiv:2203.11086: batch norms
        re-estimated
    """
    for norm in student.norms.values():
        norm.reset_running_stats()  # type: ignore[operator]
    student.train()
    with torch.no_grad():
        for x in islice(batches, AT_REST):
            student(x)


def recipe_body(student: Student) -> str:
    """The operation with the most weights, whose format stands for all in a curve."""
    return max(student.weights, key=lambda name: student.weights[name].latent.numel())


def rate_at(schedule: Schedule, done: float) -> float:
    """At ``done`` epochs: linear up, then half a cosine down (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    if done < schedule.warm_up:
        return schedule.rate * max(done / schedule.warm_up, _LAST)
    share = min(1.0, (done - schedule.warm_up) / max(schedule.epochs - schedule.warm_up, 1e-9))
    return schedule.rate * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * share)) / 2)


def batches_of(recipe: Recipe, pictures: int) -> int:
    """Whole batches of an epoch; what is left over comes another time."""
    return max(1, pictures // recipe.schedule.batch)


def _batches(recipe: Recipe, course: Course, lessons: Lessons, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures as numbers, and labels; the next is made while one is learned."""
    order = np.random.default_rng((recipe.seed, epoch)).permutation(len(lessons.train))
    size, count = recipe.schedule.batch, batches_of(recipe, len(lessons.train))

    def make(at: int) -> tuple[Tensor, Tensor]:
        chosen = order[at * size : (at + 1) * size]
        seen = lessons.augmenter(lessons.train.images[chosen], np.random.default_rng((recipe.seed, epoch, at)))
        labels = torch.from_numpy(lessons.train.labels[chosen].astype(np.int64))
        return numbers(seen, course.student.net.pixels), labels

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, 0)
        for at in range(count):
            ready = waiting.result()
            if at + 1 < count:
                waiting = pool.submit(make, at + 1)
            yield ready


def _loss(recipe: Recipe, lessons: Lessons, x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    hard = functional.cross_entropy(logits, labels, label_smoothing=recipe.schedule.label_smoothing)
    if recipe.distillation is None or lessons.teacher is None:
        return hard
    with torch.no_grad():
        wanted = lessons.teacher(x.to(_PRECISIONS[recipe.schedule.precision]))
    soft = distance(wanted, logits, recipe.distillation.temperature)
    return (1 - recipe.distillation.soft) * hard + recipe.distillation.soft * soft


def distance(wanted: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """``temperature² · KL(softmax(wanted / temperature) ‖ softmax(logits / temperature))``, the mean of pictures."""
    theirs, ours = (functional.log_softmax(found / temperature, dim=1) for found in (wanted, logits))
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def predict(network: Student, pictures: Pictures) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The class with the largest logit, of every picture."""
    network.eval()
    pixels = network.net.pixels
    with torch.no_grad():
        found = [
            network(numbers(pictures.images[at : at + _AT_ONCE], pixels)).argmax(dim=1).numpy()
            for at in range(0, len(pictures), _AT_ONCE)
        ]
    return np.concatenate(found)
