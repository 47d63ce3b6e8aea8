"""What a method returns: the tensor, and what the report should say about how it came to be."""

from __future__ import annotations

from dataclasses import dataclass

from scrimp.tensors import QTensor


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """``notes`` are sentences for people, one per thing that went another way than the method describes."""

    tensor: QTensor
    notes: tuple[str, ...] = ()
