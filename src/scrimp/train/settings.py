"""What a recovery may change, for how long, and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from scrimp.errors import UsageError

#: Steps of Adam, in the units of each kind of parameter (quantized_weight.py, student.py). Found on a network of
#: 260,000 weights and width 64, at 2 bits; wider ones want less end to end (``rate_at_width``).
RATES: Mapping[str, float] = MappingProxyType({"scales": 1e-2, "mins": 1e-2, "vectors": 3e-3, "codes": 4e-3})
RATED_WIDTH, WIDTH_POWER = 64, 0.8
#: Share of the run in which the rate rises, the share of it that it starts from, and what is left at the end.
WARM_UP, FIRST, LAST = 0.05, 0.1, 0.02
#: Windows that the original writes: about as many as there are steps for 135 M weights on two cores. A window that
#: comes again teaches itself: of 247 windows in 700 steps those learned from fell to 0.15 nats, those held out to 0.32.
WRITTEN_PER_MINUTE, MAX_WRITTEN = 12.0, 4096
#: Share of the minutes after which no more is written.
WRITING = 0.15
MAX_MINUTES = 7 * 24 * 60
MAX_STEPS = 10**7


@dataclass(frozen=True, slots=True)
class Settings:
    """``steps`` instead of ``minutes`` makes the result the same on every run of one machine."""

    minutes: float = 60.0
    steps: int | None = None
    codes: bool = False  #: learn the codes as well
    ends: bool = False  #: embedding and head as well
    block_steps: int = 0  #: steps for each block by itself, before all learn together
    windows_per_step: int = 1
    written: int | None = None  #: windows of text that the original writes; None: as many as suit the minutes
    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)

    def __post_init__(self) -> None:
        if not 0 < self.minutes <= MAX_MINUTES:
            raise UsageError(f"{self.minutes:g} minutes are out of range.", hint="for example --minutes 60")
        if self.steps is not None and not 1 <= self.steps <= MAX_STEPS:
            raise UsageError(f"{self.steps:,} steps are out of range.", hint=f"1 … {MAX_STEPS:,} are possible")

        if not 0 <= self.block_steps <= MAX_STEPS:
            raise UsageError(f"{self.block_steps:,} steps for a block are out of range.", hint="for example 64")
        if self.written is not None and not 0 <= self.written <= MAX_WRITTEN:
            raise UsageError(f"{self.written:,} windows are out of range.", hint=f"0 … {MAX_WRITTEN:,} are possible")

    def windows_to_write(self, *, has_text: bool) -> int:
        """None where the user gave a text and did not ask for more."""
        if self.written is not None:
            return self.written
        return 0 if has_text else min(MAX_WRITTEN, round(WRITTEN_PER_MINUTE * self.minutes))

    @property
    def writing_s(self) -> float | None:
        """Seconds after which the original writes no more; None where their number was given, or that of the steps."""
        return None if self.steps is not None or self.written is not None else 60 * self.minutes * WRITING

    def to_json(self) -> dict[str, Any]:
        document = {one.name: getattr(self, one.name) for one in fields(self)}
        return document | {"rates": dict(self.rates)}


def rate_at_width(width: int) -> float:
    """What to multiply the rates with where a network of this ``width`` learns end to end.

    A step of Adam moves every weight alike; the more of them a sum has, the farther it moves: by their number where all
    agree (muP: Yang et al. 2022, arXiv:2203.03466, table 3), by its root where they don't. SmolLM2-135M, 9 times as
    wide: at 2 bits a ninth of the rates 0.781 → 0.627 in 16 steps of one window, a fifth 0.590, all of it 0.93 → 2.07;
    at 3 bits a third 0.2241 → 0.2181 in 40 steps, a sixth 0.2113.
    """
    return float(min(1.0, (RATED_WIDTH / width) ** WIDTH_POWER))


def share_of_rate(done: float) -> float:
    """The rate at ``done`` (0 … 1) of the run over the highest: linear up, then half a cosine down."""
    if done < WARM_UP:
        return FIRST + (1 - FIRST) * done / WARM_UP
    fall = (min(done, 1.0) - WARM_UP) / (1 - WARM_UP)
    return LAST + (1 - LAST) * (1 + math.cos(math.pi * fall)) / 2
