"""Folds: the inputs of linear layers multiplied by a vector, which what made them is divided by.

For any ``s > 0`` a layer ``W x`` equals ``(W diag(s)) (x / s)``, and the division can be carried out beforehand where
``x`` came from an operation that passes it on to its own weights: then the network is the same in exact arithmetic, and
its matrices are other ones, which may be easier to round. Which layers that are is read off the operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats.code import F64
from scrimp.program import Op, Program
from scrimp.tensors import F32


@dataclass(frozen=True, slots=True)
class Group:
    """All matrices that read one buffer, and what divides that buffer when it is divided itself."""

    readers: tuple[str, ...]  #: matrices (N, K) whose columns are multiplied by s (K,)
    width: int  #: K
    rows: str | None = None  #: the matrix whose rows are divided
    vectors: tuple[str, ...] = ()  #: divided: the vector of a norm, or the bias of ``rows``
    repeats: int = 1  #: query heads that read the same key head, and so the same row of ``rows``
    head_dim: int = 0  #: inputs in a head; 0 where there are none
    offset: float = 0.0  #: what the norm adds to its vector before it multiplies with it

    @property
    def tensors(self) -> tuple[str, ...]:
        """Everything that changes."""
        return (*self.readers, *((self.rows,) if self.rows else ()), *self.vectors)


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What a search for the vector of a Group found."""

    s: F32 | None  #: (K,); None where nothing was better than the group as it is
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """Matrices, vectors and Statistics of matrices' inputs, by name, after a fold."""

    weights: dict[str, F32]
    vectors: dict[str, F32]
    statistics: dict[str, Statistics]


def fold_groups(program: Program) -> tuple[tuple[Group, ...], dict[tuple[str, ...], str]]:
    """The Groups of a Program in the order of its operations; and the matrices that are in none, with the reason.

    Inputs can be divided beforehand when all that reads them are linear layers, and they come from a norm (its vector
    is divided, and its bias), a gated ``activation`` (the rows of its second factor) or ``attention`` (the rows of the
    values); the matrix of those rows must feed nothing else. A matrix or vector that is used twice, like a tied
    embedding, stays.
    """
    groups: list[Group] = []
    refused: dict[tuple[str, ...], str] = {}
    made = {buffer: op for op in program.ops for buffer in op.outputs}
    used = Counter(name for op in program.ops for name in (*op.weights, *filter(None, op.vectors)))
    for buffer in dict.fromkeys(op.inputs[0] for op in program.ops if op.kind == "linear"):
        readers = [op for op in program.ops if buffer in op.inputs]
        names = tuple(name for op in readers if op.kind == "linear" for name in op.weights)
        found = _group(program, names, buffer, made)
        if isinstance(found, Group):
            twice = [name for name in found.tensors if used[name] > 1]
            if any(op.kind != "linear" for op in readers) or buffer == program.output:
                found = f"something other than linear layers reads what {names[0]} reads"
            elif twice:
                found = f"{twice[0]} is used in more than one place"
        if isinstance(found, Group):
            groups.append(found)
        else:
            refused[names] = found
    return tuple(groups), refused


def _group(program: Program, names: tuple[str, ...], buffer: int, made: Mapping[int, Op]) -> Group | str:
    """The Group of what reads ``buffer``, by the operation that made it; or why there is none."""
    op, width = made[buffer], program.widths[buffer]
    if op.kind == "layer_norm" or (op.kind == "rms_norm" and op.ints[0] == 1):
        return Group(names, width, vectors=op.vectors, offset=op.floats[1] if op.kind == "rms_norm" else 0.0)
    gated = op.kind == "activation" and len(op.inputs) == 2
    if not gated and op.kind != "attention":
        return f"their inputs come from '{op.kind}', which has nothing that could be divided beforehand"
    factor = op.inputs[1 if gated else 2]
    maker = made[factor]
    if maker.kind != "linear" or sum(reader.inputs.count(factor) for reader in program.ops) > 1:
        return f"what '{op.kind}' multiplies with is not a linear layer's output alone"
    at = maker.outputs.index(factor)
    vectors = tuple(filter(None, maker.vectors[at : at + 1]))
    if gated:
        return Group(names, width, maker.weights[at], vectors)
    heads, kv_heads, head_dim = op.ints[1:4]
    return Group(names, width, maker.weights[at], vectors, heads // kv_heads, head_dim)


def shared(group: Group, s: F32) -> F32:
    """The vector ``(K,)`` next to ``s`` that the group can be scaled by.

    With grouped queries several heads read one key head, so their factors must be equal: each becomes the geometric
    mean of those of its key head, the vector of least squared distance in the logarithm.
    """
    if s.shape != (group.width,) or not (np.isfinite(s) & (s > 0)).all():
        raise UsageError(
            f"{group.readers[0]} has {group.width:,} inputs: they are scaled by as many positive numbers.",
            hint="an input that is never active gets 1",
        )
    if group.repeats == 1:
        return s.astype(np.float32)
    heads = np.log(s.astype(np.float64)).reshape(-1, group.repeats, group.head_dim)
    mean = np.exp(heads.mean(axis=1, keepdims=True)).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(mean, heads.shape)).reshape(-1)


def apply_fold(
    group: Group,
    s: F32,
    weights: Mapping[str, F32],
    vectors: Mapping[str, F32],
    statistics: Mapping[str, Statistics],
) -> Folded:
    """The same network with the inputs of the group divided by ``shared(group, s)``::

        W' = W diag(s)   of readers          rows' = rows / s,  vectors' = vectors / s
        x' = x / s                           H' = H / (s sᵀ)

    Shapes
        s (K,) > 0, else UsageError; of what the mappings hold, all that belongs to the group changes
    Error
        One rounding to float32 of every number that changes; none where s are powers of two.
    """
    s = shared(group, s)
    measured: dict[int, Statistics] = {}  # readers share their Statistics, and go on doing so
    new = dict(statistics)
    for name in group.readers:
        if name in new:
            old = new[name]
            new[name] = measured.setdefault(id(old), divided_statistics(old, s))
    divide = of_maker(group, s)
    return Folded(
        {name: fold_weight(group, s, name, weight) for name, weight in weights.items()},
        {name: _divided(group, v, divide) if name in group.vectors else v for name, v in vectors.items()},
        new,
    )


def _divided(group: Group, vector: F32, divide: F32) -> F32:
    """A vector of the group whose network is divided: what the norm multiplies with is ``offset + vector``."""
    if not group.offset:
        return vector / divide
    offset = np.float32(group.offset)
    return (vector + offset) / divide - offset


def fold_weight(group: Group, s: F32, name: str, weight: F32) -> F32:
    """The matrix ``name (N, K)`` of a network whose group is divided by ``s``, which must be :func:`shared`."""
    if name in group.readers:
        weight = weight * s
    if name == group.rows:
        weight = weight / of_maker(group, s)[:, None]
    return weight


def of_maker(group: Group, s: F32) -> F32:
    """What the vectors and the rows of a group are divided by: ``s``, one head for all that share it."""
    if group.repeats == 1:
        return s
    return np.ascontiguousarray(s.reshape(-1, group.repeats, group.head_dim)[:, 0]).reshape(-1)


def _both_sides(moments: F64, wide: F64) -> F64:
    found = moments / wide[:, None]
    found /= wide
    return found


def divided_statistics(statistics: Statistics, s: F32) -> Statistics:
    """Of the inputs ``x / s``."""
    wide = s.astype(np.float64)
    return replace(
        statistics,
        moments=_both_sides(statistics.moments, wide),
        mean=statistics.mean / s,
        magnitude=statistics.magnitude / s,
        peak=statistics.peak / s,
        sample=None if statistics.sample is None else statistics.sample / s,
        drift=None if statistics.drift is None else _both_sides(statistics.drift, wide),
        behind=None if statistics.behind is None else statistics.behind / wide,
    )
