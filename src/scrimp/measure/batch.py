"""Throughput of several sequences that decode together: a step of n tokens reads the weights once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scrimp.errors import UsageError
from scrimp.measure.memory import PageFaults, page_faults
from scrimp.measure.speed import Rate, rate_of
from scrimp.measure.traffic import Traffic
from scrimp.progress import SILENT, Progress

if TYPE_CHECKING:
    from scrimp.engine import Sequence as Tokens
    from scrimp.model import Model

#: More at once are not measured.
MOST = 256


@dataclass(frozen=True)
class BatchSpeed:
    """``decode_tokens_per_s`` of all sequences together. ``bytes_per_step``: weights once, the cache of each."""

    sequences: int
    decode_tokens_per_s: Rate
    bytes_per_step: int
    page_faults: PageFaults  #: of all repeats together

    @property
    def step_ms(self) -> float:
        """How long each sequence waits for its next token."""
        return 1000 * self.sequences / self.decode_tokens_per_s.median

    def to_json(self) -> dict[str, Any]:
        return {
            "sequences": self.sequences,
            "decode_tokens_per_s": self.decode_tokens_per_s.to_json(),
            "step_ms": self.step_ms,
            "bytes_per_step": self.bytes_per_step,
            "page_faults_minor": self.page_faults.minor,
            "page_faults_major": self.page_faults.major,
        }


def parse_counts(text: str) -> tuple[int, ...]:
    """
    >>> parse_counts("1,2,4")
    (1, 2, 4)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 9 and 1 <= int(part) <= MOST for part in parts):
        raise UsageError(f"'{text[:40]}' are no numbers of sequences.", hint=f"1 … {MOST} each: --sequences 1,2,4,8,16")
    return tuple(int(part) for part in parts)


def batch_speeds(
    model: Model,
    counts: Sequence[int],
    traffic: Traffic,
    *,
    prefill: int,
    decode: int,
    repeat: int,
    progress: Progress = SILENT,
) -> tuple[BatchSpeed, ...]:
    """Prompts of ``prefill`` tokens that share nothing, then ``decode`` steps of one token for each sequence.

    Numbers of sequences take turns, so that what else the machine does meets all of them.
    """
    prompts = [[(7919 * i + 104729 * s + s) % model.vocab_size for i in range(prefill)] for s in range(max(counts))]
    live = [model.sequence() for _ in prompts]
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    faults = dict.fromkeys(counts, PageFaults(0, 0))
    try:
        model.extend(list(zip(live, prompts, strict=True)))
        _decode(model, live, prefill, decode)
        progress.start("sequences", repeat)
        for _ in range(repeat):
            for count in seconds:
                before = page_faults()
                seconds[count].append(_decode(model, live[:count], prefill, decode))
                faults[count] += page_faults() - before
            progress.advance()
        progress.finish()
    finally:
        for sequence in live:
            sequence.drop()
    alone, start = traffic.bytes_per_token(prefill + decode // 2), traffic.bytes_per_token(-1)
    return tuple(
        BatchSpeed(count, rate_of(count * decode, seconds[count]), start + count * (alone - start), faults[count])
        for count in counts
    )


def _decode(model: Model, live: Sequence[Tokens], prefill: int, decode: int) -> float:
    """Seconds of ``decode`` steps after the prompts."""
    for sequence in live:
        sequence.rewind(prefill)
    begin = perf_counter()
    for step in range(decode):
        model.extend([(sequence, ((step + number) % model.vocab_size,)) for number, sequence in enumerate(live)])
    return perf_counter() - begin
