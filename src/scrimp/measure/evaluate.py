"""One evaluation: a text (and tasks) through a model, and beside it through the original."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
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
    from scrimp.engine import Arithmetic, Kv
    from scrimp.model import Model

#: What the JSON calls the text that ships with scrimp.
DEFAULT_TEXT = "default"

#: Windows smaller than this say nothing of how much context the tasks need: then the model's own default is taken.
TASK_CONTEXT = 512

#: Characters of the text on which two tokenizers must agree to be taken for the same.
PAGE = 4000


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
    notes: tuple[str, ...] = ()  #: what was decoded to run
    kv: Kv = "f16"  #: format of the key/value cache
    arithmetic: Arithmetic = "int8"
    isa: str = ""  #: what multiplied: weights in bf16 meet activations in bf16 where there are instructions for it

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"model": self.model, "text": self.text, **self.perplexity.to_json()}
        document |= {"context": self.context, "protocol": self.protocol, "notes": list(self.notes)}
        document |= {"kv": self.kv, "arithmetic": self.arithmetic, "isa": self.isa}
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
    kv: Kv = "f16",
    progress: Progress = SILENT,
) -> Evaluation:
    """Perplexity of ``text`` (a string, a file, or None for the text that ships with scrimp), and with a reference the
    divergence from it.

    Models given by name or path are opened, and closed again: the model as it will run, with a key/value cache of
    format ``kv``, the reference with ``arithmetic="f32"`` and a cache of float32. Open models are used as they are.
    """
    return evaluate_all(
        [model], text, reference=reference, context=context, max_tokens=max_tokens, tasks=tasks,
        task_limit=task_limit, threads=threads, kv=kv, progress=progress,
    )[0]  # fmt: skip


def evaluate_all(
    models: Sequence[str | Path | Model],
    text: str | Path | None = None,
    *,
    reference: str | Path | Model | None = None,
    context: int = 512,
    max_tokens: int | None = None,
    tasks: Sequence[Path] = (),
    task_limit: int | None = None,
    threads: int | None = None,
    kv: Kv = "f16",
    progress: Progress = SILENT,
) -> list[Evaluation]:
    """As :func:`evaluate`, of several models that share one tokenizer; the reference runs once for all."""
    found_tasks = [task_files.read(path, task_limit) for path in tasks]
    words = default_text() if text is None else read_text(text) if isinstance(text, Path) else text
    room = None if tasks and context <= TASK_CONTEXT else context
    with ExitStack() as stack:
        subjects = [_open(model, room, threads, None, kv, stack) for model in models]
        original = None if reference is None else _open(reference, context, threads, "f32", None, stack)
        tokenizer = subjects[0].tokenizer
        _same_words([*subjects, *([] if original is None else [original])], words[:PAGE])
        bos = tokenizer.bos_id if tokenizer.add_bos else None
        windows = cut(tokenizer.encode(words, add_bos=False), context, bos=bos, max_tokens=max_tokens)
        scores = score(subjects, windows, reference=original, progress=progress)
        return [
            Evaluation(
                model=_name(model),
                context=context,
                protocol=windows.protocol,
                text=DEFAULT_TEXT
                if text is None
                else str(text)
                if isinstance(text, Path)
                else f"{len(text)} characters",
                perplexity=perplexity(one, windows, subject.vocab_size),
                reference=None if reference is None else _name(reference),
                divergence=None if original is None else divergence(one),
                tasks=tuple(solve(task, subject, progress) for task in found_tasks),
                notes=subject.notes,
                kv=subject.kv,
                arithmetic=subject.arithmetic,
                isa=subject.isa,
            )
            for model, subject, one in zip(models, subjects, scores, strict=True)
        ]


def _open(
    model: str | Path | Model,
    context: int | None,
    threads: int | None,
    arithmetic: Arithmetic | None,
    kv: Kv | None,
    stack: ExitStack,
) -> Model:
    from scrimp.model import open_model

    if not isinstance(model, str | Path):
        return model
    return stack.enter_context(open_model(str(model), context=context, threads=threads, arithmetic=arithmetic, kv=kv))


def _name(model: str | Path | Model) -> str:
    return str(model) if isinstance(model, str | Path) else str(model.source.path)


def _same_words(models: list[Model], page: str) -> None:
    """Refuse to compare predictions of tokens that mean different things."""
    first, *others = (model.tokenizer.encode(page, add_bos=False) for model in models)
    if any(other != first for other in others):
        raise Refused(
            "The models split the text into different tokens: their predictions cannot be compared.",
            hint="compare a model with what was made from it",
        )
