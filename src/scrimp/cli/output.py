"""What a command prints: a table on a terminal, plain text in a pipe, one JSON document with ``--json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scrimp.errors import GoalNotMet


def print_json(document: dict[str, Any]) -> None:
    """The one JSON document on stdout; NaN and infinity become null, since JSON has neither."""
    json.dump(_finite(document), sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """Columns aligned; the first left, the rest right. Plain spaces in a pipe, rich rules on a terminal."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        Console(markup=False, emoji=False).print(table)  # names come from strangers' files
        return
    if title:
        print(title)
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    for line in (columns, *rows):
        cells = [
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def note(text: str) -> None:
    """A fact worth knowing, on stderr."""
    print(visible(text), file=sys.stderr)


def visible(text: str) -> str:
    """Words of a stranger's file may be in it: what could steer a terminal is written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def notes(lines: Sequence[str]) -> None:
    """Each as a line of its own on stderr."""
    for line in lines:
        note(f"note: {line}")


def verdict(broken: Sequence[str]) -> int:
    """The exit code, and on stderr the models that predict a text worse than the counts of its words."""
    if broken:
        note(f"BROKEN: word counts alone predict this text better than {', '.join(broken)}.")
    return GoalNotMet.exit_code if broken else 0


def check_place(out: Path, example: str) -> None:
    """That a page can be written to ``out``, before minutes of work are lost on it."""
    from scrimp.errors import ScrimpError

    if out.is_dir():
        raise ScrimpError(f"{out} is a directory.", hint=f"name a file: {out / example}")
    if not out.absolute().parent.is_dir():
        raise ScrimpError(f"{out.parent} does not exist, so {out.name} cannot be written there.",
                          hint=f"mkdir -p {out.parent}")  # fmt: skip


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
