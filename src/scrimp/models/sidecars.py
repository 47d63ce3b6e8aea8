"""Side-cars: tensors that stand beside a matrix ``W (N, K)``; attach.py makes them run.

====================  ===============  ==========================================================================
tensor                shape            means
====================  ===============  ==========================================================================
``W.lowrank_a``       matrix (R, K)    ``y = W x + B (A x)``
``W.lowrank_b``       matrix (N, R)    B of the same
``W.rotation``        vector (3,)      seed, i, o: ``y = Rᵀ (W (R x))``, inputs rotated in i stretches, outputs in o
``W.outliers``        matrix (N, m)    ``y = W x' + O x[channels]``, where x' is x with these channels zeroed
``W.channels``        vector (m,)      the numbers of these channels, ascending
====================  ===============  ==========================================================================

Where the values ``v`` of an attention are rotated head by head, its outputs are too: nothing has to run in between.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.program import Program

F32 = NDArray[np.float32]

#: What belongs together: a matrix has all side-cars of one kind, or none.
KINDS: tuple[frozenset[str], ...] = (
    frozenset({"lowrank_a", "lowrank_b"}), frozenset({"rotation"}), frozenset({"outliers", "channels"}),
)  # fmt: skip
SUFFIXES = frozenset().union(*KINDS)
_LARGEST_SEED = 2**24
_HINT = "the directory is damaged or hostile; compress the model again"


def owner(name: str) -> str | None:
    """The matrix that a side-car stands beside; None for other tensors.

    >>> owner("lm_head.weight.rotation"), owner("lm_head.weight")
    ('lm_head.weight', None)
    """
    matrix, _, suffix = name.rpartition(".")
    return matrix if suffix in SUFFIXES else None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Inputs are rotated in ``inputs`` equal stretches, outputs in ``outputs``; all with the signs of ``seed``."""

    seed: int
    inputs: int = 1
    outputs: int = 1

    @property
    def values(self) -> tuple[float, float, float]:
        """As they are stored."""
        return float(self.seed), float(self.inputs), float(self.outputs)


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside one matrix: one of the kinds."""

    rotation: Rotation | None = None
    channels: tuple[int, ...] = ()
    rank: int = 0


def eligible(program: Program) -> set[str]:
    """Matrices that may have side-cars: one product reads each, nothing looks it up, and it doesn't make the logits."""
    uses = Counter(name for op in program.ops for name in op.weights)
    return {
        name
        for op in program.ops
        if op.kind == "linear"
        for name, output in zip(op.weights, op.outputs, strict=True)
        if uses[name] == 1 and output != program.output
    }


@dataclass(frozen=True, slots=True)
class Fold:
    """An attention whose ``values`` matrix may rotate its heads, if all ``readers`` of the result undo it."""

    values: str
    readers: tuple[str, ...]
    heads: int
    kv_heads: int
    buffers: frozenset[int]  #: that are rotated then

    def holds(self, rotation: Mapping[str, Rotation]) -> bool:
        """Whether these rotations of matrices undo each other."""
        value = rotation.get(self.values)
        others = [rotation.get(name) for name in self.readers]
        return (
            value is not None
            and value.outputs == self.kv_heads
            and all(other is not None and (other.seed, other.inputs) == (value.seed, self.heads) for other in others)
        )


def folds(program: Program) -> list[Fold]:
    """Where outputs of an attention may stay rotated: one product without a bias makes its values, products read it."""
    found, producers, reading = [], {}, defaultdict(list)
    for op in program.ops:
        for buffer in op.inputs:
            reading[buffer].append(op)
        if op.kind == "linear":
            producers.update(dict.fromkeys(op.outputs, op))
    for op in program.ops:
        if op.kind != "attention":
            continue
        values, result = op.inputs[2], op.outputs[0]
        producer, readers = producers.get(values), reading[result]
        if producer is None or producer.vectors or any(reader.kind != "linear" for reader in readers):
            continue
        if len(reading[values]) == 1 and result != program.output:
            heads, kv_heads = op.ints[1:3]
            names = tuple(name for reader in readers for name in reader.weights)
            value = producer.weights[producer.outputs.index(values)]
            found.append(Fold(value, names, heads, kv_heads, frozenset({values, result})))
    return found


def rotations(program: Program, matrices: Collection[str], seed: int) -> dict[str, Rotation]:
    """The Rotation of each of ``matrices`` if all are rotated: head by head around an attention where that is free."""
    found = {name: Rotation(seed) for name in matrices}
    for fold in folds(program):
        if fold.values in found and all(name in found for name in fold.readers):
            found[fold.values] = Rotation(seed, found[fold.values].inputs, fold.kv_heads)
            found.update({name: Rotation(seed, fold.heads, found[name].outputs) for name in fold.readers})
    return found


def beside(program: Program, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str], F32]) -> dict[str, Beside]:
    """What stands beside each matrix; ``read`` returns side-cars that are vectors.

    Refused, by name, where one fits nothing.
    """
    found: dict[str, set[str]] = {}
    for name in shapes:
        if (matrix := owner(name)) is not None:
            found.setdefault(matrix, set()).add(name.removeprefix(f"{matrix}."))
    may = eligible(program) if found else set()
    checked: dict[str, Beside] = {}
    for matrix, suffixes in found.items():
        name = f"{matrix}.{min(suffixes)}"
        if matrix not in may:
            raise Refused(f"{name[:120]} stands beside no matrix that can have it.", hint=_HINT)
        if suffixes not in KINDS:
            raise Refused(f"{name[:120]}: {', '.join(sorted(suffixes))} do not make a whole.", hint=_HINT)
        checked[matrix] = _checked(matrix, program.matrices[matrix], suffixes, shapes, read)
    return checked


def _checked(
    matrix: str,
    sides: tuple[int, int],
    suffixes: set[str],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], F32],
) -> Beside:
    rows, cols = sides
    if "rotation" in suffixes:
        _fits(f"{matrix}.rotation", shapes, (3,))
        seed, inputs, outputs = _integers(f"{matrix}.rotation", read, _LARGEST_SEED)
        if not inputs or not outputs or cols % inputs or rows % outputs:
            raise Refused(f"{matrix}.rotation cuts {rows} × {cols} into {outputs} and {inputs} parts.", hint=_HINT)
        return Beside(rotation=Rotation(seed, inputs, outputs))
    name = f"{matrix}.outliers" if "outliers" in suffixes else f"{matrix}.lowrank_b"
    count = shapes[name][-1] if shapes[name] else 0
    _fits(name, shapes, (rows, count))
    if name.endswith(".lowrank_b"):
        _fits(f"{matrix}.lowrank_a", shapes, (count, cols))
        return Beside(rank=count)
    _fits(f"{matrix}.channels", shapes, (count,))
    channels = _integers(f"{matrix}.channels", read, cols)
    if any(a >= b for a, b in pairwise(channels)):
        raise Refused(f"{matrix}.channels do not ascend.", hint=_HINT)
    return Beside(channels=channels)


def _fits(name: str, shapes: Mapping[str, tuple[int, ...]], expected: tuple[int, ...]) -> None:
    if tuple(shapes[name]) != expected:
        raise Refused(f"{name} has shape {list(shapes[name])}; here it must be {list(expected)}.", hint=_HINT)


def _integers(name: str, read: Callable[[str], F32], limit: int) -> tuple[int, ...]:
    values = read(name).tolist()
    if not all(0 <= value < limit and value.is_integer() for value in values):
        raise Refused(f"{name} holds numbers that are no integers from 0 to {limit - 1:,}.", hint=_HINT)
    return tuple(int(value) for value in values)
