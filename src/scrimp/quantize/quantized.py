"""What a method returns: the tensor, and what the report should say about how it came to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.tensors import F32, QTensor


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """``notes`` are sentences for people, one per thing that went another way than the method describes."""

    tensor: QTensor
    notes: tuple[str, ...] = ()


#: ``(weight (N, K), format, statistics) → Quantized``
Quantize = Callable[[F32, Format, Statistics | None], Quantized]
