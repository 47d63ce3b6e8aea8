"""The catalogue as a report: every format's facts, its error on standard distributions and on a model's tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import UsageError, nearest
from scrimp.formats import ELEMENTS, NAMED, Format, encode, parse
from scrimp.formats.cost import Cost
from scrimp.formats.cost import of as cost_of
from scrimp.formats.floats import Float
from scrimp.measure.format_error import (
    FormatError,
    LevelUse,
    error_of,
    finite_levels,
    largest_level,
    level_uses,
    sample,
    scaled,
)
from scrimp.progress import SILENT, Progress
from scrimp.quantize.pool import pool
from scrimp.sources.source import Source
from scrimp.tensors import QTensor

F32 = NDArray[np.float32]

#: bits_per_value of formats with a scale per row or tensor counts a matrix of this many rows and columns.
SIDE = 1024
#: Weights of a tensor, and of all matrices of a model together, that are looked at; whole rows, evenly spread.
TENSOR_WEIGHTS = 1 << 22
MODEL_WEIGHTS = 1 << 19


#: Of a Subject that is rounded.
ROUNDED = "They are rounded already: a format of like levels repeats them, and seems better than it is."


@dataclass(frozen=True, slots=True)
class Subject:
    """The numbers a report is about: one tensor, or some rows of every matrix of a model."""

    name: str  #: "smollm2-135m:model.norm.weight" as a person would write it
    stored: str  #: how the file stores them
    weights: int  #: there are
    parts: tuple[tuple[str, F32], ...]  #: what is looked at: name and rows

    @property
    def seen(self) -> int:
        return sum(part.size for _, part in self.parts)

    @property
    def rounded(self) -> bool:
        """Whether the file holds numbers of a few bits already: formats of like levels repeat them."""
        return not {word.lower() for word in self.stored.split(", ")} <= {"f32", "f16", "bf16"}

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "stored": self.stored, "tensors": len(self.parts), "weights": self.weights,
                "weights_seen": self.seen}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SubjectError:
    """Error over all parts of a Subject."""

    sqnr_db: float  #: of the mean noise-to-signal ratio of the tensors
    worst_db: float
    worst: str  #: the tensor
    mse: float  #: of all weights
    max_error: float
    cosine: float  #: mean over the tensors
    entropy_bits: float | None  #: mean, weighted by size
    capacity_used: float | None
    bits_per_weight: float  #: of these shapes
    sqnr_scaled_db: float | None  #: of formats without a scale: with the best one per tensor

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class FormatRow:
    """A line of the catalogue."""

    format: Format
    about: str
    levels: int  #: different finite numbers an element can be
    largest: float
    min_positive: float
    cost: Cost | None  #: None: not modelled
    errors: dict[str, FormatError]  #: by distribution, unit variance; "gaussian" always
    on: SubjectError | None = None

    @property
    def name(self) -> str:
        return self.format.name

    @property
    def bits_per_value(self) -> float:
        return self.format.bits_per_weight(SIDE, SIDE)

    @property
    def sqnr_db(self) -> float:
        return self.errors["gaussian"].sqnr_db

    @property
    def energy_pj(self) -> float | None:
        """Of one multiply-accumulate; None: not modelled."""
        return None if self.cost is None else self.cost.energy_pj_mac

    @property
    def area(self) -> float | None:
        """Of its circuit, over int8's; None: not modelled."""
        return None if self.cost is None else self.cost.area_vs_int8

    def listed_levels(self, most: int) -> list[float] | None:
        """Every finite number, ascending, of formats that have no more than ``most``; None of others."""
        if self.levels > most or self.format.element.name.startswith("kmeans"):
            return None
        return [float(level) for level in finite_levels(self.format)]

    def level_uses(self, subject: Subject) -> list[LevelUse] | None:
        """How one tensor uses the levels; None of several."""
        return level_uses(encode(subject.parts[0][1], self.format)) if len(subject.parts) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Infinite SQNR (nothing lost) and what is not modelled are null."""
        found: dict[str, Any] = {
            "name": self.name,
            "bits_per_value": self.bits_per_value,
            "element_bits": self.format.element.bits,
            "block": self.format.block,
            "levels": self.levels,
            "max": self.largest,
            "min_positive": self.min_positive,
            "sqnr_db": self.sqnr_db,
            "energy_pj": self.energy_pj,
            "area": self.area,
            "runs": self.format.runs,
            "about": self.about,
            "errors": {name: error.to_json() for name, error in self.errors.items()},
        }
        return found | ({} if self.on is None else {"on": self.on.to_json()})


def catalogue() -> list[str]:
    """The formats of a report that names none: every element as it is spelled by default, then the block formats."""
    return [parse(name).name for name in (*ELEMENTS, *NAMED)]


def rows(
    names: Iterable[str],
    distributions: Sequence[str] = ("gaussian",),
    subject: Subject | None = None,
    *,
    progress: Progress = SILENT,
) -> list[FormatRow]:
    """A row per format. UsageError with the nearest name for one that is unknown, before anything is measured."""
    chosen = [parse(name) for name in names]
    samples = {name: sample(name) for name in distributions}
    progress.start("formats", len(chosen))
    found = []
    for format in chosen:
        errors = {name: error_of(values, format) for name, values in samples.items()}
        on = None if subject is None else subject_error(subject, format)
        largest, smallest, levels = _extent(format)
        found.append(FormatRow(format, _about(format), levels, largest, smallest, _cost(format), errors, on))
        progress.advance(1, format.name)
    progress.finish()
    return found


def subject_error(subject: Subject, format: Format) -> SubjectError:
    """Every part encoded by itself, as a model would be."""
    errors = list(pool().map(lambda part: error_of(part[1], format), subject.parts))
    sizes = [values.size for _, values in subject.parts]
    decibels = [error.sqnr_db for error in errors]
    worst = min(range(len(errors)), key=lambda i: decibels[i] if decibels[i] == decibels[i] else -math.inf)
    better = scaled(format)
    with_scale = None
    if better is not None:
        scale, rule = better
        with_scale = _mean_db(list(pool().map(lambda p: error_of(p[1], scale, rule=rule).sqnr_db, subject.parts)))
    bits = [format.bits_per_weight(*matrix_shape(values)) * values.size for _, values in subject.parts]
    return SubjectError(
        sqnr_db=_mean_db(decibels),
        worst_db=decibels[worst],
        worst=subject.parts[worst][0],
        mse=sum(e.mse * n for e, n in zip(errors, sizes, strict=True)) / sum(sizes),
        max_error=max(e.max_error for e in errors),
        cosine=_mean([e.cosine for e in errors]),
        entropy_bits=_weighted([e.entropy_bits for e in errors], sizes),
        capacity_used=_weighted([e.capacity_used for e in errors], sizes),
        bits_per_weight=sum(bits) / sum(sizes),
        sqnr_scaled_db=with_scale,
    )


def subject_of(source: Source, model: str, tensor: str | None) -> Subject:
    """One tensor of a source by name, or rows of all its matrices; decoded to float32."""
    if tensor is not None:
        info = source.tensors.get(tensor) or source.tensors.get(f"{tensor}.weight")
        if info is None:
            hint = nearest(tensor, list(source.tensors)) or "scrimp inspect MODEL lists them"
            raise UsageError(f"{model} has no tensor '{tensor}'.", hint=hint)
        values = _some_rows(_decoded(source.read(info.name)), TENSOR_WEIGHTS)
        return Subject(f"{model}:{info.name}", info.stored, math.prod(info.shape), ((info.name, values),))
    matrices = [info for info in source.tensors.values() if len(info.shape) == 2]
    if not matrices:
        raise UsageError(f"{model} has no matrices.", hint="name one of its tensors: MODEL:TENSOR")
    total = sum(math.prod(info.shape) for info in matrices)
    parts = []
    for info in matrices:
        share = max(4 * info.shape[1], MODEL_WEIGHTS * math.prod(info.shape) // total)
        parts.append((info.name, _some_rows(_decoded(source.read(info.name)), share)))
    stored = ", ".join(sorted({info.stored for info in matrices}))
    return Subject(model, stored, total, tuple(parts))


def matrix_shape(values: F32) -> tuple[int, int]:
    """Rows and columns as blocks see them."""
    return values.size // values.shape[-1], values.shape[-1]


def _decoded(tensor: QTensor | F32) -> F32:
    return tensor.decode() if isinstance(tensor, QTensor) else tensor


def _some_rows(values: F32, most: int) -> F32:
    """Evenly spaced whole rows, at most ``most`` weights of them and at least one."""
    if values.size <= most or values.ndim < 2:
        return values
    count = max(1, most // values.shape[1])
    return np.ascontiguousarray(values[np.linspace(0, len(values) - 1, count).astype(np.intp)])


def _mean_db(decibels: Sequence[float]) -> float:
    """Of the mean noise-to-signal ratio, so that a tensor without error does not hide the others."""
    return 0.0 - 10 * math.log10(mean) if (mean := _mean([10 ** (-d / 10) for d in decibels])) > 0 else math.inf


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _cost(format: Format) -> Cost | None:
    """None where the model has no circuit for it."""
    try:
        return cost_of(format)
    except UsageError:
        return None


def _weighted(numbers: Sequence[float | None], sizes: Sequence[int]) -> float | None:
    known = [(x, n) for x, n in zip(numbers, sizes, strict=True) if x is not None]
    return sum(x * n for x, n in known) / sum(n for _, n in known) if len(known) == len(numbers) else None


def _about(format: Format) -> str:
    return NAMED[format.name].about if format.recipe is not None else format.element.about


def _extent(format: Format) -> tuple[float, float, int]:
    """Largest number, smallest above zero, and how many there are, before the scale."""
    spec = format.element.spec
    if format.element.name in ("f32", "tf32"):
        assert isinstance(spec, Float)
        finite = 2 * ((1 << spec.exponent) - 1 << spec.fraction) - 1
        return largest_level(format), 2.0 ** (1 - spec.bias - spec.fraction), finite
    levels = finite_levels(format)
    positive = levels[levels > 0]
    return float(levels[-1]), float(positive[0]) if positive.size else math.nan, levels.size
