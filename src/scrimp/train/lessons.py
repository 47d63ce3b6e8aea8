"""What a recovery reads: windows of text, most to learn from and a few only to measure on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate import windows as calibration_windows
from scrimp.errors import Refused
from scrimp.text.tokenizer import Tokenizer

I32 = NDArray[np.int32]

#: Windows that are run at most: their hidden states are kept.
WINDOWS = 1024
#: Windows that are only measured on: these many, but no more than this share.
HELD_OUT, HELD_OUT_SHARE = 8, 1 / 4


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """``windows (W, T)`` of token ids, and which of them are learned from and which only measured."""

    windows: I32
    learned: NDArray[np.int64]
    held_out: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        parts = (self.windows.astype("<i4"), self.learned.astype("<i8"), self.held_out.astype("<i8"))
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def read(tokenizer: Tokenizer, context: int, text: str | Path | None = None, *, written: I32 | None = None) -> Lessons:
    """Windows of a text: a string, a file, or None for what ships with scrimp without the part that losses are
    measured on; and behind them what the original has ``written``. Refused when there are fewer than two."""
    found = calibration_windows.read(tokenizer, context, text, windows=WINDOWS)
    count, length = found.windows.shape
    named = str(text) if isinstance(text, Path) else "the text that ships with scrimp" if text is None else "a text"
    said = f"recovery read {count} windows of {length} tokens of {named}"
    if written is None or not len(written):
        return of([found.windows], (said, *found.notes[1:]))
    more = f"recovery read {len(written)} windows that the original wrote itself"
    return of([found.windows, written], (said, *found.notes[1:], more))


def of(parts: Sequence[I32], notes: tuple[str, ...]) -> Lessons:
    """Windows of several origins; the held-out ones are spread evenly over all."""
    windows = np.concatenate(parts)
    count = len(windows)
    if count < 2:
        raise Refused("Recovery needs two windows of text: one to learn from, one to measure on.",
                      hint="--calibrate FILE takes a longer text")  # fmt: skip
    held = max(1, min(HELD_OUT, int(count * HELD_OUT_SHARE)))
    measured = (np.arange(held) * 2 + 1) * count // (2 * held)
    return Lessons(windows, np.setdiff1d(np.arange(count), measured), measured, notes)
