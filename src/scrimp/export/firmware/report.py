"""What an export is, in numbers: per layer, in flash and RAM, and where both end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scrimp.export.firmware.plan import STACK_BYTES, Layer, Plan


@dataclass(frozen=True, slots=True)
class FirmwareReport:
    """Bytes are exact for the arena and weights; code and instructions are what the cost table predicts.

    ``flash_bytes`` counts code, start-up, constants and weights, ``ram_bytes`` the arena and what is kept for the
    stack; ``flash_limit`` and ``ram_limit`` are what was asked for, None without a limit.
    """

    target: str
    out: Path | None
    flash_bytes: int
    flash_limit: int | None
    ram_bytes: int
    ram_limit: int | None
    weight_bytes: int
    parameter_bytes: int
    code_bytes: int
    arena_bytes: int
    stack_bytes: int
    instructions: int
    channel_by_channel: bool
    vectors: int
    layers: tuple[Layer, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out": None if self.out is None else str(self.out)}


def report_of(plan: Plan, flash: int | None, ram: int | None, vectors: int, out: Path | None) -> FirmwareReport:
    return FirmwareReport(
        plan.target.name,
        out,
        plan.flash,
        flash,
        plan.ram,
        ram,
        sum(layer.weight_bytes for layer in plan.layers),
        sum(layer.parameter_bytes for layer in plan.layers),
        plan.code_bytes,
        plan.arena.size,
        STACK_BYTES,
        plan.instructions,
        plan.chained,
        vectors,
        plan.layers,
    )
