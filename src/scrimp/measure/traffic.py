"""Bytes that one step of decoding reads, and where they and the time go."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrimp.engine.cache import Kv, row_bytes
from scrimp.engine.float_path import bytes_as_run, run_format
from scrimp.program import Op, Program
from scrimp.tensors import QTensor

if TYPE_CHECKING:
    from scrimp.engine import OpTime
    from scrimp.model import Model


@dataclass(frozen=True)
class Traffic:
    """A Program and the bytes each of its weights takes in memory, those that are decoded as they run."""

    program: Program
    weight_bytes: dict[str, int]
    kv: Kv = "f16"
    formats: frozenset[str] = frozenset()  #: that matrices are multiplied in

    @classmethod
    def of(cls, model: Model) -> Traffic:
        """One tensor is read at a time."""
        program = model.program
        names = {name for op in program.ops for name in (*op.weights, *filter(None, op.vectors))}
        multiplied = {name for op in program.ops if op.kind == "linear" for name in op.weights}
        sizes, formats = dict[str, int](), set[str]()
        for name in sorted(names):
            tensor = model.source.read(name)
            sizes[name] = _bytes(tensor)
            if name in multiplied and isinstance(tensor, QTensor):
                formats.add(run_format(tensor.format).name)
        return cls(program, sizes, model.kv, frozenset(formats))

    def bytes_per_token(self, position: int) -> int:
        """Bytes read to decode the token at ``position``: each matrix once (a tied head is a matrix), one row of the
        embedding, the norms and biases, and the keys and values of all positions so far."""
        return sum(self.bytes_of(op, position) for op in self.program.ops)

    def bytes_of(self, op: Op, position: int) -> int:
        """What one operation reads of that; activations are not counted, they stay in the processor's caches."""
        if op.kind == "embed":
            return self.weight_bytes[op.weights[0]] // self.program.matrices[op.weights[0]][0]
        if op.kind == "attention":
            _, _, kv_heads, head_dim, window, _ = op.ints
            return 2 * min(position + 1, window or position + 1) * kv_heads * row_bytes(self.kv, head_dim)
        return sum(self.weight_bytes[name] for name in (*op.weights, *filter(None, op.vectors)))

    def macs_of(self, op: Op, position: int) -> int:
        """Multiply-adds of one operation for the token at ``position``: of products and attention, nothing else."""
        if op.kind == "attention":
            _, heads, _, head_dim, window, _ = op.ints
            return 2 * min(position + 1, window or position + 1) * heads * head_dim
        return sum(prod(self.program.matrices[name]) for name in op.weights) if op.kind == "linear" else 0

    def macs_of_prompt(self, op: Op, tokens: int) -> int:
        """The same for a whole prompt; its last token alone needs logits, and whatever comes after attention."""
        ops = self.program.ops
        last = max((at for at, other in enumerate(ops) if other.kind == "attention"), default=-1)
        return self.macs_of(op, tokens // 2) * (1 if any(op is other for other in ops[last + 1 :]) else tokens)


def _bytes(tensor: QTensor | NDArray[np.float32]) -> int:
    return bytes_as_run(tensor.format, tensor.shape) if isinstance(tensor, QTensor) else int(tensor.nbytes)


@dataclass(frozen=True)
class OpCost:
    """Operations of one sort, all layers together. ``bytes``: weights and cache read, by all calls together;
    ``macs``: their multiply-adds, of products and attention."""

    phase: str
    op: str
    calls: int
    seconds: float
    bytes: int
    macs: int = 0


def op_costs(
    phase: str, times: Iterable[OpTime], traffic: Traffic, position: int, prompt: int | None = None
) -> list[OpCost]:
    """The profile of the engine, operations of the same sort added up, the costliest first.

    ``position`` is the mean one of the calls. A run of many tokens, ``prompt`` in all, reads its weights once per
    chunk, which is a call.
    """
    costs: dict[str, tuple[int, float, int, int]] = {}
    for time in times:
        calls, seconds, size, macs = costs.get(label(time.op), (0, 0.0, 0, 0))
        moved = traffic.bytes_of(time.op, position) * time.calls
        if prompt is None:
            macs += traffic.macs_of(time.op, position) * time.calls
        else:
            macs += traffic.macs_of_prompt(time.op, prompt)
        costs[label(time.op)] = (calls + time.calls, seconds + time.seconds, size + moved, macs)
    found = [OpCost(phase, op, *cost) for op, cost in costs.items()]
    return sorted(found, key=lambda cost: cost.seconds, reverse=True)


def label(op: Op) -> str:
    """The kind of an operation and the last words of its weights' names, without the layer.

    >>> label(Op("linear", (0,), (1, 2), ("model.layers.3.mlp.gate_proj.weight", "model.layers.3.mlp.up_proj.weight")))
    'linear gate_proj up_proj'
    """
    names = [re.sub(r"\.(weight|bias)$", "", name).rsplit(".", 1)[-1] for name in op.weights or op.vectors if name]
    return " ".join([op.kind, *names])
