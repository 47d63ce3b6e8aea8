"""One evaluation: a text (and tasks) through a model, and beside it through the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrimp.errors import Refused
from scrimp.measure import task_files
from scrimp.measure.divergence import Divergence, divergence
from scrimp.measure.perplexity import Perplexity, perplexity
from scrimp.measure.scores import score
from scrimp.measure.tasks import TaskResult, solve
from scrimp.measure.windows import cut, default_text, read_text
from scrimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from scrimp.engine import Arithmetic
    from scrimp.model import Model
    from scrimp.text.tokenizer import Tokenizer

#: What the JSON calls the text that ships with scrimp.
DEFAULT_TEXT = "default"

#: Tokens of context a task may take at least, however small the windows of the text are.
TASK_CONTEXT = 512


@dataclass(frozen=True)
class Evaluation:
    """Everything measured, and how. ``to_json()`` has the keys of CLI.md, and more."""

    model: str
    context: int
    protocol: str
    text: str
    perplexity: Perplexity
    reference: str | None = None
    divergence: Divergence | None = None
    tasks: tuple[TaskResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"model": self.model, "text": self.text, **self.perplexity.to_json()}
        document |= {"context": self.context, "protocol": self.protocol}
        if self.divergence is not None:
            document |= {"reference": self.reference, **self.divergence.to_json()}
        if self.tasks:
            document["tasks"] = [task.to_json() for task in self.tasks]
        return document


def evaluate(
    model: str | Path | Model,
    text: str | Path | None = None,
    *,
    reference: str | Path | Model | None = None,
    context: int = 512,
    max_tokens: int | None = None,
    tasks: Sequence[Path] = (),
    task_limit: int | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Perplexity of ``text`` (a string, a file, or None for the text that ships with scrimp), and with a reference the
    divergence from it.

    Models given by name or path are opened, and closed again: the model as it will run, the reference with
    ``arithmetic="f32"``. Open models are used as they are.
    """
    task_files = [task_files.read(path, task_limit) for path in tasks]
    words = default_text() if text is None else read_text(text) if isinstance(text, Path) else text
    opened: list[Model] = []
    try:
        room = max(context, TASK_CONTEXT) if tasks else context
        subject = _open(model, room, threads, "int8", opened)
        original = None if reference is None else _open(reference, context, threads, "f32", opened)
        if original is not None:
            _same_words(subject.tokenizer, original.tokenizer, words)
        windows = cut(
            subject.tokenizer.encode(words, add_bos=False),
            context,
            bos=subject.tokenizer.bos_id if subject.tokenizer.add_bos else None,
            max_tokens=max_tokens,
        )
        scores = score(subject, windows, reference=original, progress=progress)
        return Evaluation(
            model=_name(model),
            context=context,
            protocol=windows.protocol,
            text=DEFAULT_TEXT if text is None else str(text) if isinstance(text, Path) else f"{len(text)} characters",
            perplexity=perplexity(scores, windows, subject.vocab_size),
            reference=None if reference is None else _name(reference),
            divergence=None if original is None else divergence(scores),
            tasks=tuple(solve(task, subject, progress) for task in task_files),
        )
    finally:
        for one in opened:
            one.close()


def _open(
    model: str | Path | Model, context: int, threads: int | None, arithmetic: Arithmetic, opened: list[Model]
) -> Model:
    import scrimp

    if not isinstance(model, str | Path):
        return model
    opened.append(scrimp.open(str(model), context=context, threads=threads, arithmetic=arithmetic))
    return opened[-1]


def _name(model: str | Path | Model) -> str:
    return str(model) if isinstance(model, str | Path) else str(model.source.path)


def _same_words(tokenizer: Tokenizer, other: Tokenizer, text: str) -> None:
    """Refuse to compare predictions of tokens that mean different things; a page of the text is enough to tell."""
    page = text[:4000]
    if tokenizer.encode(page, add_bos=False) != other.encode(page, add_bos=False):
        raise Refused(
            "The model and the reference split the text into different tokens.",
            hint="--reference takes the model it was made from",
        )
