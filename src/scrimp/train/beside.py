"""A matrix beside its side-cars: what they are together, and what of an original the matrix alone stands for."""

from __future__ import annotations

from collections.abc import Callable

from scrimp.models.sidecars import Beside
from scrimp.quantize.decoded import decode
from scrimp.quantize.quip import turn
from scrimp.tensors import F32, QTensor

#: Reads a stored tensor by its name.
Read = Callable[[str], QTensor | F32]


def together(name: str, beside: Beside | None, read: Read) -> F32:
    """The weights ``(N, K)`` that the matrix ``name`` and what stands beside it multiply with."""
    found = _decoded(name, read)
    if beside is None:
        return found
    if beside.rotation is not None:
        return turn(found, beside.rotation, inverse=True)
    if beside.rank:
        return found + _lowrank(name, read)
    found[:, list(beside.channels)] = _decoded(f"{name}.outliers", read)
    return found


def alone(weight: F32, name: str, beside: Beside | None, read: Read) -> F32:
    """``weight (N, K)`` as the matrix ``name`` alone stands for it: rotated, without what its low-rank part adds, with
    zeros for the channels that are kept apart."""
    if beside is None:
        return weight
    if beside.rotation is not None:
        return turn(weight, beside.rotation)
    if beside.rank:
        return weight - _lowrank(name, read)
    found = weight.copy()
    found[:, list(beside.channels)] = 0
    return found


def _lowrank(name: str, read: Read) -> F32:
    return _decoded(f"{name}.lowrank_b", read) @ _decoded(f"{name}.lowrank_a", read)


def _decoded(name: str, read: Read) -> F32:
    tensor = read(name)
    assert isinstance(tensor, QTensor)
    return decode(tensor)
