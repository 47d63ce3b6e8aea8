"""What calibration reads: windows of tokens from a text, and what a reader of the report should know of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.measure.windows import calibration_text, cut, read_text
from scrimp.text.tokenizer import Tokenizer

WINDOWS = 128
#: Tokens in a window, where the network's own context is not shorter.
LENGTH = 512
#: More would be weeks of work.
MAX_WINDOWS = 2**16

#: What a block's inputs come from: the blocks before it as they will be stored, or as the source has them; or the
#: first, and weights make up for what that prefix does to the inputs.
Prefix = Literal["quantized", "original", "joint"]
_PREFIXES: tuple[Prefix, ...] = get_args(Prefix)
#: Costs about twice the time of "quantized". SmolLM2-135M, gptq, 128 windows: int3:g64 KL 0.470 → 0.307, int2:g32
#: 1.302 → 1.248.
DEFAULT_PREFIX: Prefix = "joint"


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """``windows (W, T)`` of token ids; ``notes`` say which text they are from and what is odd about them."""

    windows: NDArray[np.int32]
    notes: tuple[str, ...]
    prefix: Prefix = "quantized"

    @property
    def tokens(self) -> int:
        """Tokens in all windows: what every linear layer sees."""
        return int(self.windows.size)

    @property
    def identity(self) -> str:
        """Changes when the result of a method that calibrates would."""
        shape = ",".join(map(str, (*self.windows.shape, self.prefix)))
        return hashlib.sha256(shape.encode() + self.windows.astype("<i4").tobytes()).hexdigest()


def as_prefix(word: str) -> Prefix:
    """UsageError for another word."""
    for prefix in _PREFIXES:
        if word == prefix:
            return prefix
    raise UsageError(f"'{word}' is no prefix.", hint=f"the prefixes are {', '.join(_PREFIXES)}")


def check(windows: int | None, prefix: str) -> None:
    """UsageError unless :func:`read` knows both."""
    if windows is not None and not 1 <= windows <= MAX_WINDOWS:
        raise UsageError(f"{windows:,} calibration windows are out of range.", hint=f"1 … {MAX_WINDOWS:,} are possible")
    as_prefix(prefix)


def read(
    tokenizer: Tokenizer,
    context: int,
    text: str | Path | None = None,
    *,
    windows: int | None = None,
    prefix: Prefix = "quantized",
) -> Calibration:
    """Windows spread evenly over a text: a string, a file, or None for the one of many kinds that ships with scrimp,
    which no loss is measured on."""
    check(windows, prefix)
    wanted = WINDOWS if windows is None else windows
    length = min(LENGTH, context)
    words = calibration_text() if text is None else read_text(text) if isinstance(text, Path) else text
    tokens = tokenizer.encode(words, add_bos=False)
    named = str(text) if isinstance(text, Path) else f"a text of {len(words):,} characters"
    if text is None:
        named = "the calibration text that ships with scrimp"
    try:
        all_windows = cut(tokens, length, bos=tokenizer.bos_id if tokenizer.add_bos else None).tokens
    except Refused as error:
        raise Refused(f"Calibration: {error.message}", hint="--calibrate FILE takes a longer text") from None
    count = min(wanted, len(all_windows))
    chosen = np.ascontiguousarray(all_windows[np.arange(count) * len(all_windows) // count])
    fewer = f" (the text has no more; {wanted} were asked for)" if count < wanted else ""
    notes = [f"calibrated on {count} windows of {length} tokens from {named}{fewer}", _monotony(tokens)]
    return Calibration(chosen, tuple(filter(None, notes)), prefix)


def _monotony(tokens: list[int]) -> str:
    """A sentence where one token is most of the text: the tokenizer does not know its language."""
    values, counts = np.unique(np.asarray(tokens, np.int64), return_counts=True)
    share = counts.max() / len(tokens)
    if share <= 0.5:
        return ""
    return (
        f"token {values[counts.argmax()]} is {share:.0%} of the calibration text, which this tokenizer hardly knows: "
        "give a text of the model's own kind with --calibrate"
    )
