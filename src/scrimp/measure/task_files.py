"""Reading tasks from files: HellaSwag's six lines, and JSON lines with choices or a continuation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scrimp.errors import Refused
from scrimp.measure.windows import read_text

#: Lines of one HellaSwag task: context, label, four endings.
HELLASWAG_LINES = 6


@dataclass(frozen=True)
class Item:
    """A context and what may follow it; a cloze has one choice, which is the right one."""

    context: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Task:
    """``kind`` says how an item is judged: the likeliest choice, or the greedy continuation."""

    name: str
    kind: Literal["choice", "cloze"]
    items: tuple[Item, ...]


def read(path: Path, limit: int | None = None) -> Task:
    """The format is told by the content.

    ==========  ==================================================================================================
    six lines   context, number of the right ending (0 to 3), four endings; the form of llama.cpp's ``--hellaswag``
    JSON lines  ``{"query", "choices", "gold"}``; a query that begins with ``Question:`` is answered after ``Answer:``
    JSON lines  ``{"context", "continuation"}``
    ==========  ==================================================================================================
    """
    lines = read_text(path).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise Refused(f"{path} is empty.", hint="six lines a task, or JSON lines")
    if lines[0].lstrip().startswith("{"):
        rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        cloze = "continuation" in rows[0]
        items = [(_cloze if cloze else _choice)(path, number, row) for number, row in enumerate(rows, 1)]
        return Task(path.stem, "cloze" if cloze else "choice", tuple(items[:limit]))
    if len(lines) % HELLASWAG_LINES:
        raise Refused(
            f"{path} is no task file: its {len(lines):,} lines are neither JSON nor a multiple of {HELLASWAG_LINES}.",
            hint="context, label and four endings a task; or JSON lines with query, choices and gold",
        )
    starts = range(0, len(lines), HELLASWAG_LINES)
    return Task(path.stem, "choice", tuple([_six_lines(path, lines, start) for start in starts][:limit]))


def _six_lines(path: Path, lines: list[str], start: int) -> Item:
    context, label, *endings = lines[start : start + HELLASWAG_LINES]
    if label.strip() not in ("0", "1", "2", "3"):
        raise Refused(f"{path}, line {start + 2}: '{label[:40]}' is no label from 0 to 3.", hint="the file is damaged")
    return _checked(path, start + 1, Item(context.strip(), tuple(ending.strip() for ending in endings), int(label)))


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise Refused(f"{path}, line {number} is no JSON object.", hint="one task per line")
    return row


def _choice(path: Path, number: int, row: dict[str, Any]) -> Item:
    query, choices, gold = row.get("query"), row.get("choices"), row.get("gold")
    texts = [one for one in choices if isinstance(one, str)] if isinstance(choices, list) else []
    whole = len(texts) >= 2 and texts == choices
    if not whole or not isinstance(query, str) or not isinstance(gold, int) or not 0 <= gold < len(texts):
        raise Refused(
            f"{path}, line {number} is no task: it needs query (text), choices (two texts or more), gold (a number).",
            hint='{"query": "…", "choices": ["…", "…"], "gold": 0}',
        )
    context = query.rstrip()
    if context.startswith("Question:") and "Answer:" not in context:
        context += "\nAnswer:"
    return _checked(path, number, Item(context, tuple(choice.strip() for choice in texts), gold))


def _cloze(path: Path, number: int, row: dict[str, Any]) -> Item:
    context, continuation = row.get("context"), row.get("continuation")
    if not isinstance(context, str) or not isinstance(continuation, str):
        raise Refused(
            f"{path}, line {number} is no task: it needs context and continuation (texts).",
            hint='{"context": "…", "continuation": "…"}',
        )
    return _checked(path, number, Item(context.rstrip(), (continuation.strip(),), 0))


def _checked(path: Path, number: int, item: Item) -> Item:
    if not item.context or not all(item.choices):
        raise Refused(f"{path}, line {number} has an empty text.", hint="every context and every choice needs words")
    return item
