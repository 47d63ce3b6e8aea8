"""Every error a user can meet: one sentence, a hint, and the exit code that the command line documents."""

from __future__ import annotations


class ScrimpError(Exception):
    """Something failed. ``message`` says what, with the value and the limit; ``hint`` says what to do."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} Hint: {self.hint}" if self.hint else self.message


class UsageError(ScrimpError):
    """The call itself is wrong: an unknown format, method or flag value."""

    exit_code = 2


class Refused(ScrimpError):
    """The input is malformed, unsupported or unsafe; nothing of it was used."""

    exit_code = 3


class GoalNotMet(ScrimpError):
    """The work was done, but what was asked for could not be reached."""

    exit_code = 4


class Full(ScrimpError):
    """What was set aside is used up: pages of the key/value cache, or sequences. All that is open stays usable."""


def nearest(word: str, known: list[str]) -> str:
    """``" Did you mean 'int4'?"``, or an empty string when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return f"Did you mean '{close[0]}'?" if close else ""
