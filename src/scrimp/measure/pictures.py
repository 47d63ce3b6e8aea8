"""How many pictures a network names rightly, which classes it takes for which, and how fast it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import UsageError
from scrimp.measure.error_bars import mean_error
from scrimp.pictures import Pictures, load
from scrimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from scrimp.integer.model import PictureModel

#: Pictures between two ticks of the progress bar.
_AT_ONCE = 512
#: Pairs of classes that are listed.
_PAIRS = 5


@dataclass(frozen=True, slots=True)
class Confusion:
    """``n`` pictures of class ``label`` were taken for class ``taken_for``."""

    label: str
    taken_for: str
    n: int


@dataclass(frozen=True, slots=True)
class PictureEvaluation:
    """What was measured. The class of a picture is the first of the largest logits."""

    model: str
    pictures: str  #: as it was asked for: "mnist:test"
    n: int
    accuracy: float
    accuracy_se: float  #: standard error of the mean of n independent answers
    counts: NDArray[np.int64]  #: (classes, classes): pictures of each label, by what they were taken for
    confused: tuple[Confusion, ...]  #: the most frequent mistakes, the worst first
    seconds: float
    threads: int
    isa: str

    @property
    def pictures_per_s(self) -> float:
        return self.n / self.seconds

    def to_json(self) -> dict[str, Any]:
        names = ("model", "pictures", "n", "accuracy", "accuracy_se", "seconds", "pictures_per_s", "threads", "isa")
        document = {name: getattr(self, name) for name in names}
        confused = [{"label": c.label, "taken_for": c.taken_for, "n": c.n} for c in self.confused]
        return document | {"confused": confused, "counts": self.counts.tolist()}


def evaluate_pictures(
    model: str | Path,
    spec: str,
    *,
    data: Path | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> PictureEvaluation:
    """Open a network of pictures and show it those of ``spec`` ("mnist:test"), whose files lie in ``data``."""
    import scrimp
    from scrimp.integer.model import PictureModel

    with scrimp.open(model, threads=threads) as opened:
        if not isinstance(opened, PictureModel):
            raise UsageError(f"{model} is a network of text, which sees no pictures.", hint="leave out --pictures")
        shown = load(spec, data)
        _check(opened, shown, spec)
        return measure(opened, shown, spec, progress=progress)


def measure(model: PictureModel, shown: Pictures, spec: str, *, progress: Progress = SILENT) -> PictureEvaluation:
    """As :func:`evaluate_pictures`, of what is open already. Only the network is timed."""
    progress.start("pictures", len(shown))
    answers, seconds = [], 0.0
    for at in range(0, len(shown), _AT_ONCE):
        part = shown.images[at : at + _AT_ONCE]
        began = perf_counter()
        logits = model.logits(part)
        seconds += perf_counter() - began
        answers.append(logits.argmax(axis=1))
        progress.advance(len(part))
    progress.finish()
    answered = np.concatenate(answers)
    right = (answered == shown.labels).astype(np.float64)
    counts = np.zeros((model.classes, model.classes), np.int64)
    np.add.at(counts, (shown.labels, answered), 1)
    names = shown.names if len(shown.names) == model.classes else tuple(map(str, range(model.classes)))
    return PictureEvaluation(
        model=str(model.source.path),
        pictures=spec,
        n=len(shown),
        accuracy=float(right.mean()),
        accuracy_se=mean_error(right),
        counts=counts,
        confused=_most_confused(counts, names),
        seconds=seconds,
        threads=model.engine.threads,
        isa=model.engine.isa,
    )


def _most_confused(counts: NDArray[np.int64], names: tuple[str, ...]) -> tuple[Confusion, ...]:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = ((int(at) // len(names), int(at) % len(names)) for at in worst)
    return tuple(Confusion(names[a], names[b], int(wrong[a, b])) for a, b in pairs if wrong[a, b])


def _check(model: PictureModel, shown: Pictures, spec: str) -> None:
    """UsageError where the network sees other pictures than these."""
    image, (height, width, channels) = model.net.image, shown.images.shape[1:]
    if channels != image.channels:
        raise UsageError(f"{spec} has {channels} channels; the network sees {image.channels}.",
                         hint="measure it with pictures like those it was trained with")  # fmt: skip
    if (height, width) != (image.height, image.width):
        raise UsageError(f"{spec} has pictures of {height} × {width}; the network sees {image.height} × {image.width}.",
                         hint=f"--pictures {spec.split('@')[0]}@{image.height}x{image.width}")  # fmt: skip
    if shown.labels.max(initial=0) >= model.classes:
        raise UsageError(f"{spec} has labels up to {shown.labels.max()}; the network knows {model.classes} classes.",
                         hint="measure it with pictures like those it was trained with")  # fmt: skip
