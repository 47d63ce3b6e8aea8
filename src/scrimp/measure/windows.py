"""A text as windows of tokens: what is evaluated, and what is left over."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.sizes import format_bytes

I32 = NDArray[np.int32]

#: Longest text: it is tokenized whole, which takes a hundred times its bytes.
TEXT_BYTES = 20_000_000


@dataclass(frozen=True, eq=False)
class Windows:
    """``tokens (windows, context)``: consecutive, non-overlapping; the first column is BOS where ``has_bos``."""

    tokens: I32
    has_bos: bool
    text_tokens: int  #: tokens the whole text has, before cutting
    dropped: int  #: of those, how many came after the last whole window
    bounded: bool  #: True when max_tokens, not the end of the text, ended it

    @property
    def context(self) -> int:
        return int(self.tokens.shape[1])

    @property
    def targets(self) -> I32:
        """The scored tokens ``(windows, context - 1)``: every token but the first of a window."""
        return self.tokens[:, 1:]

    @property
    def protocol(self) -> str:
        """How the text was cut, in one sentence that travels with the numbers."""
        first = f"BOS and {self.context - 1} of the text" if self.has_bos else "all of the text, no BOS"
        rest = "bounded by max-tokens" if self.bounded else "the ragged rest"
        return (
            f"text tokenized whole ({self.text_tokens} tokens), {len(self.tokens)} consecutive non-overlapping windows "
            f"of {self.context} tokens ({first}); every token but the first of a window is scored; "
            f"{self.dropped} tokens at the end not used ({rest})"
        )


def cut(tokens: list[int], context: int, *, bos: int | None = None, max_tokens: int | None = None) -> Windows:
    """Cut the tokens of a text (without BOS) into windows of ``context``.

    With ``bos`` a window is BOS and ``context - 1`` tokens of text: no token of the text is overwritten by it, so every
    one is scored. ``max_tokens`` bounds the tokens of the windows together.
    """
    if context < 2:
        raise UsageError(f"A context of {context} leaves no token to score.", hint="--context 512 is usual")
    if max_tokens is not None and max_tokens < context:
        raise UsageError(
            f"{max_tokens} tokens at most is less than one window of {context}.",
            hint=f"--max-tokens {context} is the least, where no smaller --context is meant",
        )
    body = context - (bos is not None)
    count = len(tokens) // body
    if count == 0:
        raise Refused(
            f"The text has {len(tokens):,} tokens, fewer than one window of {context} takes.",
            hint="a longer text, or a smaller --context",
        )
    bounded = max_tokens is not None and max_tokens // context < count
    if bounded and max_tokens is not None:
        count = max_tokens // context
    used = np.asarray(tokens[: count * body], np.int32).reshape(count, body)
    if bos is not None:
        used = np.concatenate([np.full((count, 1), bos, np.int32), used], axis=1)
    return Windows(used, bos is not None, len(tokens), len(tokens) - count * body, bounded)


def default_text() -> str:
    """The text that ships with scrimp to measure on; ``data/README.md`` says what it is."""
    return _shipped("text.txt")


def calibration_text() -> str:
    """The text that ships with scrimp to calibrate on and to learn from: pieces of many kinds."""
    return _shipped("calibration.txt")


def _shipped(name: str) -> str:
    return resources.files("scrimp").joinpath("data", name).read_text(encoding="utf-8")


def read_text(path: Path) -> str:
    """A UTF-8 text file; anything else is refused, since decoding it loosely would measure another text."""
    with path.open("rb") as file:
        raw = file.read(TEXT_BYTES + 1)  # a device may never end
    if len(raw) > TEXT_BYTES:
        raise Refused(f"{path} has more than {format_bytes(TEXT_BYTES)}.", hint=f"take a part: head -c {TEXT_BYTES}")
    try:
        return raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise Refused(
            f"{path} is not UTF-8 text (byte {error.start:,}).", hint="convert it first: iconv -t utf-8 FILE"
        ) from None
