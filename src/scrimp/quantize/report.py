"""What compressing did, as it is printed, written and returned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scrimp.measure.evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class TensorReport:
    """``error`` is ``‖w - ŵ‖ / ‖w‖`` against the source; ``output_error`` ``‖X (w - ŵ)ᵀ‖ / ‖X wᵀ‖`` over the inputs X
    of a calibration, None without one."""

    name: str
    format: str
    method: str
    error: float
    output_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in document.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Recovery:
    """What training after compression did (train/): mean KL in nats on held-out windows, before and at its lowest."""

    curve: tuple[tuple[int, float, float], ...]  #: steps, seconds, KL
    before: float
    after: float
    best_step: int
    ended: str  #: why it ended before its time, or nothing
    settings: dict[str, Any]

    @property
    def gained(self) -> bool:
        return self.after < self.before

    def to_json(self) -> dict[str, Any]:
        document = {name: getattr(self, name) for name in self.__slots__}
        curve = [dict(zip(("step", "seconds", "kl"), point, strict=True)) for point in self.curve]
        return document | {"curve": curve, "gained": self.gained}


@dataclass(frozen=True, slots=True)
class CompressReport:
    """What was done; ``seconds`` and ``rss_peak_bytes`` until the store was complete, before the loss was measured."""

    out: str
    file_bytes: int
    bits_per_weight: float  #: 8 · all bytes of the directory / parameters of the original
    seconds: float
    rss_peak_bytes: int
    tensors: tuple[TensorReport, ...]
    notes: tuple[str, ...]
    resumed: int  #: tensors that an earlier attempt had finished
    loss: Evaluation | None = None
    recovery: Recovery | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("tensors", "loss", "recovery")
        }
        document["notes"] = list(self.notes)
        document["tensors"] = [tensor.to_json() for tensor in self.tensors]
        if self.loss is not None:
            document["loss"] = self.loss.to_json()
        if self.recovery is not None:
            document["recovery"] = self.recovery.to_json()
        return document


def record(report: CompressReport) -> dict[str, Any]:
    document = report.to_json()
    return {name: document[name] for name in ("tensors", "loss", "recovery") if name in document}
