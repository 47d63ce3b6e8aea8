"""Tokenizer data is hostile until checked: what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scrimp.errors import Refused

HINT = "fetch the file again, or name another tokenizer"


def malformed(reason: str) -> Refused:
    return Refused(f"The tokenizer is malformed: {reason}.", hint=HINT)


def check_distinct(tokens: Sequence[str]) -> None:
    """Refuses a token that is empty or no Unicode, and two with the same text: one of them could never be written."""
    first: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if not token:
            raise malformed(f"token {i:,} is empty")
        if first.setdefault(token, i) != i:
            raise malformed(f"tokens {first[token]:,} and {i:,} are both {token[:40]!r}")
    text = "".join(tokens)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise malformed(
            f"the token with {text[error.start]!r} is no Unicode: that is half of a surrogate pair"
        ) from None


@contextmanager
def refusing(*but: type[Exception]) -> Iterator[None]:
    """Turns whatever the ``tokenizers`` library raises on malformed data, Rust panics included, into ``Refused``;
    ``but`` are errors that pass."""
    try:
        yield
    except (Refused, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic is no Exception
        if isinstance(error, but):
            raise
        raise malformed(" ".join(str(error).split())[:200].rstrip(".") or type(error).__name__) from None
