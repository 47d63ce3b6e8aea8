"""What a user asks of a compression: one goal, and how it may be reached. Checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from scrimp.calibrate import windows
from scrimp.calibrate.ranges import RULES
from scrimp.calibrate.windows import DEFAULT_PREFIX, Prefix
from scrimp.errors import UsageError, nearest
from scrimp.formats import Format
from scrimp.quantize.plan import Rule, parse_rule, storable
from scrimp.sizes import parse_bytes

#: No weight is stored in more.
MAX_BITS = 64


@dataclass(frozen=True, slots=True)
class Wish:
    """Exactly one of ``format``, ``bits``, ``size``, ``kl`` and ``keep`` is the goal.

    >>> Wish(size="60MB").size_bytes
    60000000
    """

    format: str | None = None  #: of the body's matrices, like ``int4:g64``
    bits: float | None = None  #: per weight, everything included
    size: str | int | None = None  #: of all files together: bytes, or text like ``60MB``
    kl: float | None = None  #: largest loss in nats
    keep: bool = False  #: every matrix as the source stores it
    method: str = "rtn"  #: how codes are chosen
    rules: Sequence[str] = ()  #: ``GLOB=FORMAT[@METHOD]``, the last match wins
    embedding: str | None = None  #: format of embedding and head
    pack: bool = False  #: codes and scales under an entropy coder, decoded when the model is opened
    tokenizer: Path | None = None  #: of a llama2.c model
    calibrate: str | Path | None = None  #: a text, a file of one, or None for the text that ships with scrimp
    calibrate_windows: int | None = None  #: windows of that text
    calibrate_prefix: Prefix = DEFAULT_PREFIX  #: what a block reads while it is calibrated
    recover: bool = False  #: a recovery follows, and learns from the text of ``calibrate`` too
    activations: str = "dynamic"  #: or ``static[:RULE]``: scales of what products read, fixed by a calibration

    def __post_init__(self) -> None:
        wishes = {
            "--format": self.format is not None, "--bits": self.bits is not None, "--size": self.size is not None,
            "--kl": self.kl is not None, "--keep": self.keep,
        }  # fmt: skip
        if sum(wishes.values()) != 1:
            raise UsageError(f"Give exactly one of {', '.join(wishes)}.", hint="for example --format int4:g64")
        if self.keep and (self.rules or self.embedding):
            raise UsageError("--keep changes no format, so --rule and --embedding have no place.", hint="use --format")
        if self.keep and self.method != "rtn":
            raise UsageError(f"--keep chooses no codes, so --method {self.method} has no place.", hint="use --format")
        _ = self.parsed_rules, self.ends, self.body, self.size_bytes, self.range_rule
        windows.check(self.calibrate_windows, self.calibrate_prefix)
        if self.bits is not None and not 0 <= self.bits <= MAX_BITS:
            raise UsageError(f"{self.bits:g} bits per weight are out of range.", hint=f"0 … {MAX_BITS} are possible")
        if self.kl is not None and not 0 < self.kl < math.inf:
            raise UsageError(f"A loss of {self.kl:g} nats is out of range.", hint="for example --kl 0.05")

    @property
    def parsed_rules(self) -> list[Rule]:
        return [parse_rule(rule, self.method) for rule in self.rules]

    @property
    def ends(self) -> Format | None:
        """Format of embedding and head, where one was asked for."""
        return storable(self.embedding) if self.embedding is not None else None

    @property
    def body(self) -> Format | None:
        return storable(self.format) if self.format is not None else None

    @property
    def range_rule(self) -> str | None:
        """How the scales of activations are found; None where each token has its own."""
        kind, _, rule = self.activations.partition(":")
        rule = rule or "absmax"
        if self.activations == "dynamic":
            return None
        if kind != "static" or rule not in RULES:
            hint = f"dynamic, static, {', '.join(f'static:{name}' for name in RULES)}"
            raise UsageError(f"'{self.activations[:40]}' is no way to quantize activations.", hint=hint)
        return rule

    @property
    def size_bytes(self) -> int | None:
        return parse_bytes(self.size) if isinstance(self.size, str) else self.size


def wish_of(keywords: dict[str, Any]) -> Wish:
    """Keyword arguments → a Wish; UsageError for one that it doesn't know."""
    known = [field.name for field in fields(Wish)]
    for name in keywords:
        if name not in known:
            hint = nearest(name, known) or f"a wish has {', '.join(known)}"
            raise UsageError(f"'{name}' is nothing that can be wished for.", hint=hint)
    return Wish(**keywords)
