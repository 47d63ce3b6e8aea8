"""How long work reports itself: library code calls a ``Progress``, only the command line draws one."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what is being done, how much there is, and each step of it."""

    def start(self, what: str, total: float) -> None:
        """A new stage with ``total`` units begins."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """``amount`` units of the stage are done; ``note`` names the newest."""

    def finish(self) -> None:
        """The stage is over."""


class Silent:
    """The default: says nothing."""

    def start(self, what: str, total: float) -> None: ...

    def advance(self, amount: float = 1, note: str = "") -> None: ...

    def finish(self) -> None: ...


SILENT = Silent()
