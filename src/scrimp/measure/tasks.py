"""Tasks with a right answer: choose an ending, or say the last word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.measure.error_bars import mean_error
from scrimp.measure.scores import F32, Network
from scrimp.measure.task_files import Item, Task
from scrimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from scrimp.text.tokenizer import Tokenizer


class Solver(Network, Protocol):
    """A network that reads text."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def step(self, tokens: Sequence[int], start: int) -> F32:
        """Logits ``(V,)`` after the last of ``tokens``."""


@dataclass(frozen=True)
class TaskResult:
    """``accuracy``: the gold choice is the likeliest (cloze: every token of the continuation is the likeliest).

    ``accuracy_norm``: the same with log-likelihoods divided by the bytes of the choice, so that long endings are not
    punished; None for cloze. ``chance``: what guessing gets.
    """

    name: str
    n: int
    accuracy: float
    accuracy_se: float
    accuracy_norm: float | None
    accuracy_norm_se: float | None
    chance: float

    def to_json(self) -> dict[str, str | int | float | None]:
        document: dict[str, str | int | float | None] = {
            "name": self.name, "n": self.n, "accuracy": self.accuracy, "accuracy_se": self.accuracy_se,
            "chance": self.chance,
        }  # fmt: skip
        if self.accuracy_norm is not None:
            document |= {"accuracy_norm": self.accuracy_norm, "accuracy_norm_se": self.accuracy_norm_se}
        return document


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Of one choice after its context: summed log-likelihood in nats, and whether greedy decoding would say it."""

    log_likelihood: float
    greedy: bool


def solve(task: Task, model: Solver, progress: Progress = SILENT) -> TaskResult:
    """Answer every item of ``task``; the context is run once per item, each choice continues from its cache."""
    hits, hits_norm = [], []
    progress.start(task.name, len(task.items))
    for number, item in enumerate(task.items, 1):
        found = likelihoods(item, model, f"{task.name}, item {number}")
        if task.kind == "cloze":
            hits.append(float(found[0].greedy))
        else:
            sums = np.array([one.log_likelihood for one in found])
            sizes = np.array([len(choice.encode()) for choice in item.choices])
            hits.append(float(sums.argmax() == item.gold))
            hits_norm.append(float((sums / sizes).argmax() == item.gold))
        progress.advance()
    progress.finish()
    right, right_norm = np.array(hits), np.array(hits_norm)
    return TaskResult(
        name=task.name,
        n=len(task.items),
        accuracy=float(right.mean()),
        accuracy_se=mean_error(right),
        accuracy_norm=float(right_norm.mean()) if hits_norm else None,
        accuracy_norm_se=mean_error(right_norm) if hits_norm else None,
        chance=0.0 if task.kind == "cloze" else float(np.mean([1 / len(item.choices) for item in task.items])),
    )


def likelihoods(item: Item, model: Solver, where: str) -> list[Likelihood]:
    """One per choice. Context and choice are joined by a space and tokenized together, as a reader would see them;
    what all choices share with the context is the prefix, and the tokens after it are scored."""
    encode: Callable[[str], list[int]] = model.tokenizer.encode
    wholes = [encode(f"{item.context} {choice}") for choice in item.choices]
    prefix = common_prefix([encode(item.context), *wholes])
    prefix = prefix[: min(len(whole) for whole in wholes) - 1]
    longest = max(len(whole) for whole in wholes)
    if not prefix or longest > model.context:
        raise Refused(
            f"{where} has {longest} tokens; from 2 to {model.context} fit.", hint="a larger --context, or another file"
        )
    first = model.step(prefix, 0)
    return [_likelihood(model, first, whole, len(prefix)) for whole in wholes]


def common_prefix(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The tokens with which all ``sequences`` begin.

    >>> common_prefix([[1, 2, 3], [1, 2], [1, 2, 4]])
    [1, 2]
    """
    shared: list[int] = []
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared


def _likelihood(model: Solver, first: F32, whole: list[int], start: int) -> Likelihood:
    from scrimp import _core

    targets: NDArray[np.int32] = np.array(whole[start:], np.int32)
    logits = first[None, :]
    if targets.size > 1:
        logits = np.concatenate([logits, model.logits(whole[start:-1], start)])
    nll = _core.score(logits, targets, None, threads=model.threads, isa=model.isa)["nll"]
    return Likelihood(-float(nll.sum()), bool((logits.argmax(axis=1) == targets).all()))
