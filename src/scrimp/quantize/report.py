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

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("tensors", "loss")
        }
        document["notes"] = list(self.notes)
        document["tensors"] = [tensor.to_json() for tensor in self.tensors]
        if self.loss is not None:
            document["loss"] = self.loss.to_json()
        return document


def record(report: CompressReport) -> dict[str, Any]:
    document = report.to_json()
    return {name: document[name] for name in ("tensors", "loss") if name in document}
