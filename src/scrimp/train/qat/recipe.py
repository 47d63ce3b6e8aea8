"""A recipe: what is trained on what, how its weights are stored, and for how long. Plain data; recipe_file reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from scrimp.formats import Format, parse
from scrimp.train.qat.rules import Rule, default_rule

FLOAT: tuple[Format, Rule] = (parse("f32"), "float")


@dataclass(frozen=True, slots=True)
class Data:
    """Pictures of ``set`` (scrimp.pictures), resized to ``size`` where it is given, the first ``first`` of them."""

    set: str
    size: tuple[int, int] | None = None
    directory: Path | None = None
    first: int | None = None  #: pictures to train on; all unless given

    def spec(self, split: str) -> str:
        return f"{self.set}:{split}"


@dataclass(frozen=True, slots=True)
class Weights:
    """How an operation's weights are stored, and how their scales are found."""

    format: Format
    rule: Rule

    @property
    def spelled(self) -> str:
        return "float" if self.rule == "float" else f"{self.format.name} ({self.rule})"


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to every picture anew in every epoch. Sides and pixels are those of the set, before resizing."""

    crop: int = 0  #: pixels of padding that a crop of the old size is taken from
    flip: bool = False  #: left and right, every second time
    cutout: int = 0  #: side of a square of zeros
    rotate: float = 0.0  #: most degrees either way
    scale: float = 0.0  #: most that a picture grows or shrinks, as a share
    shear: float = 0.0  #: most degrees either way
    shift: float = 0.0  #: most pixels either way
    elastic: float = 0.0  #: pixels (standard deviation) that points of a coarse grid are moved by

    @property
    def warps(self) -> bool:
        return any((self.rotate, self.scale, self.shear, self.shift, self.elastic))


@dataclass(frozen=True, slots=True)
class Schedule:
    """``rate`` rises over ``warm_up`` epochs and falls as half a cosine. In the first ``float_epochs`` nothing is
    rounded; then weights take the formats of ``progressive`` in turn, each for its epochs, then their own."""

    epochs: int
    batch: int = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    rate: float = 1e-3
    weight_decay: float = 0.0
    warm_up: float = 0.0
    float_epochs: int = 0
    progressive: tuple[tuple[Format, int], ...] = ()
    freeze: Mapping[str, int] = field(default_factory=dict)  #: operations (globs) → epochs after which weights stay
    label_smoothing: float = 0.0
    precision: Literal["f32", "bf16"] = "f32"  #: of products while they are learned; tests are always in f32


@dataclass(frozen=True, slots=True)
class Distillation:
    """The loss is ``(1 − soft) · cross entropy + soft · temperature² · KL(teacher ‖ student)``, both softened.

    Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2.
    """

    teacher: Path  #: a store of ``scrimp train``
    temperature: float = 4.0
    soft: float = 0.7


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out, but for the machine."""

    name: str
    data: Data
    model: str
    sizes: Mapping[str, Sequence[int]]
    weights: Weights
    layers: Mapping[str, Weights]  #: operations (globs) that differ
    schedule: Schedule
    activations: Literal["static", "dynamic", "float"] = "static"
    augmentation: Augmentation = Augmentation()
    distillation: Distillation | None = None
    seed: int = 0
    document: Mapping[str, Any] = field(default_factory=dict)  #: as it was read

    def of(self, operation: str) -> Weights:
        """How an operation's weights are stored in the end: the last glob that fits it."""
        fitting = [weights for pattern, weights in self.layers.items() if fnmatchcase(operation, pattern)]
        return fitting[-1] if fitting else self.weights

    def at(self, operation: str, epoch: int) -> Weights:
        """How they are rounded in an epoch, counted from 0."""
        if epoch < (begin := self.schedule.float_epochs):
            return Weights(*FLOAT)
        final = self.of(operation)
        for format, epochs in self.schedule.progressive:
            if epoch < (begin := begin + epochs):
                wider = format.element.bits > final.format.element.bits
                return replace(final, format=format, rule=default_rule(format)) if wider else final
        return final

    def frozen(self, operation: str, epoch: int) -> bool:
        """Whether its weights have stopped to learn."""
        return any(epoch >= at for glob, at in self.schedule.freeze.items() if fnmatchcase(operation, glob))
