"""A Program in torch: the operations the engine runs, with gradients. Only operations count, no architecture.

``B`` windows of ``T`` tokens each, all from position 0; a buffer is ``(B, T, width)`` float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from scrimp.program import Op, Program


class Weight(Protocol):
    """A matrix ``(N, K)`` that multiplies, and whose rows embed."""

    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ``: (…, K) → (…, N)."""

    def rows(self, tokens: Tensor) -> Tensor:
        """(…) token ids → (…, K)."""


@dataclass(frozen=True, slots=True)
class Network:
    """A Program with its weights. ``activations`` rounds what the products read, as the engine's int8 path does."""

    program: Program
    matrices: Mapping[str, Weight]
    vectors: Mapping[str, Tensor]
    activations: Callable[[Tensor], Tensor] = lambda x: x


def run(
    network: Network,
    tokens: Tensor,
    outputs: tuple[int, ...],
    *,
    first: int = 0,
    last: int | None = None,
    inputs: Mapping[int, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """Operations ``[first, last)`` on ``tokens (B, T)``; returns the buffers of ``outputs``.

    ``inputs`` are buffers put in place first. A buffer is let go after its last reader.
    """
    ops = network.program.ops[first:last]
    last_read = {index: at for at, op in enumerate(ops) for index in (*op.inputs, *op.outputs)}
    last_read |= dict.fromkeys(outputs, len(ops))
    buffers = dict(inputs or {})
    for at, op in enumerate(ops):
        made = OPERATIONS[op.kind](network, op, tokens, [buffers[index] for index in op.inputs])
        buffers.update(zip(op.outputs, made, strict=True))
        for index in {*op.inputs, *op.outputs}:
            if last_read[index] <= at:
                del buffers[index]
    return tuple(buffers[index] for index in outputs)


Operation = Callable[[Network, Op, Tensor, list[Tensor]], tuple[Tensor, ...]]


def _embed(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (network.matrices[op.weights[0]].rows(tokens),)


def _rms_norm(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    vector = network.vectors[op.vectors[0]]
    return (functional.rms_norm(inputs[0], vector.shape, vector, op.floats[0]),)


def _linear(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x = network.activations(inputs[0])
    made = [network.matrices[name].product(x) for name in op.weights]
    for at, name in enumerate(op.vectors):
        if name:
            made[at] = made[at] + network.vectors[name]
    return tuple(made)


def _rope(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x = inputs[0].unflatten(-1, op.ints)  # (B, T, H, D)
    positions = torch.arange(x.shape[1], dtype=torch.float32)
    angles = (positions[:, None] * torch.tensor(op.floats, dtype=torch.float32))[:, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return (torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2),)


def _attention(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    _, heads, kv_heads, head_dim = op.ints
    q, k, v = (x.unflatten(-1, (-1, head_dim)).transpose(1, 2) for x in inputs)  # (B, H, T, D)
    k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    found = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=op.floats[0])
    return (found.transpose(1, 2).flatten(-2),)


def _swiglu(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (functional.silu(inputs[0]) * inputs[1],)


def _add(network: Network, op: Op, tokens: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (inputs[0] + inputs[1],)


#: One function per operation of ``program.KINDS``.
OPERATIONS: dict[str, Operation] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "linear": _linear,
    "rope": _rope,
    "attention": _attention,
    "swiglu": _swiglu,
    "add": _add,
}
