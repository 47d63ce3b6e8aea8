"""What a method returns: the tensor, what stands beside it, and what the report should say about how it came to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.tensors import F32, QTensor


@dataclass(frozen=True, slots=True)
class SideCar:
    """A tensor beside a matrix (models/sidecars.py): a matrix in a Format, or a float32 vector."""

    shape: tuple[int, ...]
    format: Format | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """``notes`` are sentences for people, one per thing that went another way than the method describes.

    ``beside`` holds side-cars by their suffix; ``effective`` is the matrix ``(N, K)`` that all of it together stands
    for, None where that is the tensor itself.
    """

    tensor: QTensor
    notes: tuple[str, ...] = ()
    beside: Mapping[str, QTensor | F32] = field(default_factory=dict)
    effective: F32 | None = None


#: ``(weight (N, K), format, statistics) → Quantized``
Quantize = Callable[[F32, Format, Statistics | None], Quantized]
