"""The progress bar: on stderr, on a terminal only; what, how far, and the time left."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scrimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Bar:
    """Draws one stage at a time with rich; implements :class:`scrimp.progress.Progress`."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def start(self, what: str, total: float) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.finish()
        self._bar = Progress(
            TextColumn("{task.description:<12}", markup=False), BarColumn(), TaskProgressColumn(),
            TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False), console=Console(stderr=True),
            transient=True,
        )  # fmt: skip
        self._bar.start()
        self._bar.add_task(what, total=total, note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=amount, note=note)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def progress() -> Progress:
    """A bar where someone can see it, silence elsewhere."""
    return Bar() if sys.stderr.isatty() else SILENT
