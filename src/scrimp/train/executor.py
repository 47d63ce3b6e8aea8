"""A Program in torch: the operations the engine runs, with gradients. Only operations count, no architecture.

``B`` windows of ``T`` tokens each; a buffer is ``(B, T, width)`` float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from scrimp.models.hadamard import odd_factor, turn
from scrimp.program import CURVES, LOOK_UPS, Curve, Op, Program


class Weight(Protocol):
    """A matrix ``(N, K)`` that multiplies, and whose rows embed."""

    def product(self, x: Tensor) -> Tensor:
        """``x Wᵀ``: (…, K) → (…, N)."""

    def rows(self, tokens: Tensor) -> Tensor:
        """(…) token ids → (…, K)."""


@dataclass(frozen=True, slots=True)
class Network:
    """A Program with its weights."""

    program: Program
    matrices: Mapping[str, Weight]
    vectors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """What operations see besides their inputs: ``tokens (B, T)``."""

    network: Network
    tokens: Tensor


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
    buffers, this = dict(inputs or {}), Run(network, tokens)
    for at, op in enumerate(ops):
        made = OPERATIONS[op.kind](this, op, [buffers[index] for index in op.inputs])
        buffers.update(zip(op.outputs, made, strict=True))
        for index in {*op.inputs, *op.outputs}:
            if last_read[index] <= at:
                del buffers[index]
    return tuple(buffers[index] for index in outputs)


Operation = Callable[[Run, Op, list[Tensor]], tuple[Tensor, ...]]


def _embed(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    what, tokens = op.ints[0], run.tokens
    if what == LOOK_UPS["position"]:
        tokens = torch.arange(tokens.shape[1]).expand(tokens.shape)
    elif what == LOOK_UPS["first"]:
        tokens = torch.zeros_like(tokens)
    rows = run.network.matrices[op.weights[0]].rows(tokens)
    return (rows if op.floats[0] == 1 else rows * op.floats[0],)


def _rms_norm(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    vector, (eps, offset) = run.network.vectors[op.vectors[0]], op.floats
    if offset:
        vector = vector + offset
    x = inputs[0].view(*inputs[0].shape[:-1], op.ints[0], -1)
    return (functional.rms_norm(x, vector.shape, vector, eps).flatten(-2),)


def _layer_norm(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    vector, bias = (run.network.vectors[name] for name in op.vectors)
    return (functional.layer_norm(inputs[0], vector.shape, vector, bias, op.floats[0]),)


def _linear(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    made = [run.network.matrices[name].product(inputs[0]) for name in op.weights]
    for at, name in enumerate(op.vectors):
        if name:
            made[at] = made[at] + run.network.vectors[name]
    return tuple(made)


def _rope(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    x = inputs[0].view(*inputs[0].shape[:2], *op.ints)  # (B, T, H, D)
    positions = torch.arange(x.shape[1], dtype=torch.float32)
    angles = (positions[:, None] * torch.tensor(op.floats, dtype=torch.float32))[:, None, :]
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    return (torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2),)


def _attention(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    _, heads, kv_heads, head_dim, window, causal = op.ints
    scale, cap = op.floats
    q, k, v = (x.view(*x.shape[:2], -1, head_dim).transpose(1, 2) for x in inputs)  # (B, H, T, D)
    k, v = (x.repeat_interleave(heads // kv_heads, dim=1) for x in (k, v))
    mask = None
    if causal and (window or cap):
        behind = torch.arange(k.shape[2])[:, None] - torch.arange(k.shape[2])  # (T, T)
        mask = (behind >= 0) & (behind < (window or k.shape[2]))
    if cap:
        scores = cap * torch.tanh(q @ k.transpose(-1, -2) * (scale / cap))
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
        found = scores.softmax(dim=-1) @ v
    else:
        whole = mask is None and bool(causal)
        found = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=whole, scale=scale)
    return (found.transpose(1, 2).flatten(-2),)


_CURVES: dict[Curve, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu2": lambda x: functional.relu(x).square(),
}


def _activation(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    bend = next(_CURVES[curve] for curve, number in CURVES.items() if number == op.ints[0])
    made = bend(inputs[0])
    return (made * inputs[1] if len(inputs) > 1 else made,)


def _softcap(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (op.floats[0] * torch.tanh(inputs[0] / op.floats[0]),)


def _add(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return (inputs[0] + inputs[1],)


def _hadamard(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """The rotation as two products: of the matrices whose Kronecker product mixes, once the signs are on."""
    inverse, stretches = op.ints
    flip, left, right = _mixing(op.floats, inputs[0].shape[-1] // stretches)
    made = inputs[0].reshape(-1, len(flip))
    made = made if inverse else made * flip
    made = (left @ (made.view(-1, len(left), len(right)) @ right)).view(made.shape)
    made = (made * flip if inverse else made).view(inputs[0].shape)
    return (made + run.network.vectors[op.vectors[0]] if op.vectors and op.vectors[0] else made,)


@lru_cache(maxsize=64)
def _mixing(floats: tuple[float, ...], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(signs, F ⊗ H_a, H_b)`` of ``F ⊗ H_(ab)`` on vectors of ``width``, a side near the root of it (hadamard.py)."""
    m = odd_factor(width)
    b = min(width // m, 1 << (math.isqrt(width) - 1).bit_length())
    left = turn(np.eye(width // b), (1.0,) * (width // b) + floats[width:])
    right = turn(np.eye(b), (1.0,) * (b + 1))
    flip = torch.tensor(floats[:width], dtype=torch.float32)
    return flip, torch.from_numpy(np.float32(left)), torch.from_numpy(np.float32(right))


def _select(run: Run, op: Op, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    channels = list(op.ints)
    kept = torch.ones(inputs[0].shape[-1])
    kept[channels] = 0
    return inputs[0] * kept, inputs[0][..., channels]


#: One function per operation of ``program.KINDS``.
OPERATIONS: dict[str, Operation] = {
    "embed": _embed,
    "rms_norm": _rms_norm,
    "linear": _linear,
    "rope": _rope,
    "attention": _attention,
    "activation": _activation,
    "add": _add,
    "hadamard": _hadamard,
    "select": _select,
    "layer_norm": _layer_norm,
    "softcap": _softcap,
}
