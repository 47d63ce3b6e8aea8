"""Several models in one table: bytes, loss, speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrimp.engine import Kv
from scrimp.formats.cost_energy import check_node
from scrimp.measure.evaluate import Evaluation, evaluate_all
from scrimp.measure.side_by_side import measure_side_by_side
from scrimp.measure.speed import Speed
from scrimp.progress import SILENT, Progress


@dataclass(frozen=True)
class Row:
    """One model: what it weighs, what it lost, how fast it is."""

    model: str
    file_bytes: int
    parameters: int
    evaluation: Evaluation
    speed: Speed

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.file_bytes / self.parameters

    def to_json(self) -> dict[str, Any]:
        totals = {
            "file_bytes": self.file_bytes,
            "parameters": self.parameters,
            "bits_per_weight": self.bits_per_weight,
        }
        return {**totals, **self.evaluation.to_json(), **self.speed.to_json()}


def compare(
    models: Sequence[str],
    text: str | Path | None = None,
    *,
    reference: str | None = None,
    context: int = 512,
    max_tokens: int | None = None,
    prefill: int = 256,
    decode: int = 64,
    threads: int | None = None,
    rounds: int = 5,
    node: str = "45nm",
    kv: Kv = "f16",
    progress: Progress = SILENT,
) -> list[Row]:
    """Every model measured on the same text and in the same run; models take turns in front of the clock."""
    check_node(node)
    totals = [size(model) for model in models]
    evaluations = evaluate_all(
        models, text, reference=reference, context=context, max_tokens=max_tokens, threads=threads, kv=kv,
        progress=progress,
    )  # fmt: skip
    speeds = measure_side_by_side(
        models, prefill=prefill, decode=decode, threads=threads, rounds=rounds, node=node, kv=kv, progress=progress
    )
    return [
        Row(model, *total, evaluation, speed)
        for model, total, evaluation, speed in zip(models, totals, evaluations, speeds, strict=True)
    ]


def size(model: str) -> tuple[int, int]:
    """Bytes on disk of everything needed to run, and parameters; nothing but the headers is read."""
    from scrimp.sources.locate import locate
    from scrimp.sources.open import open_source

    with open_source(locate(model)) as source:
        return source.file_bytes, source.parameters
