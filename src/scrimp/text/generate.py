"""The loop that generates: evaluate, choose, decode, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.text.sampling import GREEDY, Sampling, sample
from scrimp.text.stop import StopMatcher
from scrimp.text.stream import TextStream
from scrimp.text.tokenizer import Tokenizer

Step = Callable[[Sequence[int], int], NDArray[np.floating]]
"""``step(tokens, start)``: evaluates tokens at positions start, start + 1, …; the logits (V,) after the last."""


@dataclass(frozen=True)
class Timings:
    """Seconds spent evaluating and choosing, and over how many tokens; the caller's own time doesn't count."""

    prefill_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prefill_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0


@dataclass(frozen=True)
class Piece:
    """Some more text, the tokens generated since the piece before (an end token included), and at the end why it ended:
    "stop" (end token or stop string) or "length" (``max_tokens`` or the context are used up). Timings are totals."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: Literal["stop", "length"] | None
    timings: Timings


def generate(
    step: Step,
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    sampling: Sampling = GREEDY,
    *,
    context: int,
    max_tokens: int | None = None,
    stops: Sequence[str] = (),
    cached: int = 0,
) -> Iterator[Piece]:
    """Yields a Piece per token, the last one with a ``finish_reason``. Checks its arguments at once, not at the first
    piece.

    ``context``: most tokens, prompt and reply together; ``max_tokens`` None: until then. ``cached``: how many
    tokens of the prompt ``step`` has seen before, at these positions; at least the last one is evaluated again.
    """
    if not len(prompt):
        raise UsageError("The prompt is empty.", hint="give it at least one word")
    if len(prompt) >= context:
        raise Refused(
            f"The prompt has {len(prompt):,} tokens, which leaves no room in a context of {context:,}.",
            hint="shorten the prompt",
        )
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(f"max_tokens is {max_tokens}.", hint="max_tokens is at least 1")
    room = context - len(prompt)
    limit = room if max_tokens is None else min(room, max_tokens)
    return _pieces(step, list(prompt), tokenizer, sampling, StopMatcher(stops), limit, min(cached, len(prompt) - 1))


def _pieces(
    step: Step,
    history: list[int],
    tokenizer: Tokenizer,
    sampling: Sampling,
    stop: StopMatcher,
    limit: int,
    cached: int,
) -> Iterator[Piece]:
    rng = sampling.generator() if sampling.temperature else None
    stream = TextStream(tokenizer, continues=any(i not in tokenizer.special_ids for i in history))
    began = time.perf_counter()
    logits = step(history[cached:], cached)
    timings = Timings(prefill_tokens=len(history) - cached, prefill_s=time.perf_counter() - began)
    for count in range(1, limit + 1):
        began = time.perf_counter()
        if count > 1:
            logits = step(history[-1:], len(history) - 1)
            timings = replace(timings, decode_tokens=timings.decode_tokens + 1)
        token = sample(logits, history, sampling, rng)
        ended = token in tokenizer.eos_ids
        text, stopped = stop.push("" if ended else stream.push(token))
        history.append(token)
        if not stopped and (ended or count == limit):
            rest, stopped = stop.push(stream.flush())
            text += rest if stopped else rest + stop.flush()
        timings = replace(timings, decode_s=timings.decode_s + time.perf_counter() - began)
        done = ended or stopped
        yield Piece(text, (token,), "stop" if done else "length" if count == limit else None, timings)
        if done:
            return
