"""Activations in eight bits: with a learned step that stays after training, with one per picture, or as they are."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function

from scrimp.train.qat.straight_through import through

Kind = Literal["static", "dynamic", "float"]
LOW, HIGH = -128, 127
#: Numbers that fit into a cache with all that is made of them.
_PIECE = 1 << 16
#: Of a largest magnitude, from batch to batch.
_KEPT = 0.99
#: Root mean squares that eight bits reach to at first.
_FIRST_REACH = 6.0
#: Of a learned step over its first value.
_LEAST = 0.01


class Activation(nn.Module):
    """ReLU where the operation has one, then rounding to ``step · (0 … 127)``, or ``step · (−128 … 127)``.

    static   one learned step (LSQ, Esser et al. 2020, arXiv:1902.08153): ``step = scale · first``. The first batch that
             comes sets ``first`` to ``6 · √mean x² / 127``, half of what LSQ begins with: eight bits have room, and
             finer steps keep integers and training closer together
    dynamic  ``step = max |x| / 127`` of each picture; the gradient passes everywhere
    float    no rounding

    Under the latter two ``largest`` remembers the largest magnitude of the last hundred batches or so, from which a
    store gets its step.
    """

    first: Tensor
    largest: Tensor

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.kind: Kind = "float"
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("first", torch.zeros(()))
        self.register_buffer("largest", torch.zeros(()))

    @property
    def low(self) -> int:
        return 0 if self.relu else LOW

    def step(self) -> Tensor:
        """What code 1 means."""
        if self.kind == "static" and float(self.first) > 0:
            return (self.scale * self.first).detach()
        return self.largest / HIGH

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "static":
            if float(self.first) == 0:
                seen = x.detach().clamp(min=0) if self.relu else x.detach()
                self.first = (_FIRST_REACH * seen.float().square().mean().sqrt() / HIGH).clamp(min=1e-6)
            step = self.scale * self.first
            x = x.contiguous(memory_format=_format(x))
            found: Tensor = _Learned.apply(x, step, self.low, HIGH)  # type: ignore[no-untyped-call]
            return found
        made = x.clamp(min=0) if self.relu else x
        with torch.no_grad():
            size = made.abs().flatten(1).amax(dim=1).float().clamp(min=1e-6)
            if self.training:  # a test must not decide what is stored
                self.largest = torch.maximum(self.largest * _KEPT, size.max())
        if self.kind == "float":
            return made
        steps = (size / HIGH).view(-1, *[1] * (x.dim() - 1))
        return through(made, (made.detach() / steps).round_().mul_(steps).to(made.dtype))

    def settle(self) -> None:
        """After a step of the optimizer: the scale stays positive."""
        with torch.no_grad():
            self.scale.clamp_(min=_LEAST)


class _Learned(Function):
    """``step · clamp(round(x / step), low, high)``, piece by piece, each in cache for all that is done to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        size = float(step)
        made = torch.empty_like(x)
        for part, out in zip(_pieces(x), _pieces(made), strict=True):
            torch.mul(part, 1 / size, out=out)
            out.round_().clamp_(low, high).mul_(size)
        ctx.save_for_backward(x, made)
        ctx.size, ctx.ends = size, (low, high)
        return made

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """``dx = g`` strictly inside, ``dstep = Σ g (q − x / step)`` inside and ``Σ g q`` outside, over √(n · high)."""
        (x, made), (low, high) = ctx.saved_tensors, ctx.ends
        gradient = given[0].contiguous(memory_format=_format(x))
        passed, off = torch.empty_like(x), 0.0
        for g, part, q, out in zip(*map(_pieces, (gradient, x, made, passed)), strict=True):
            torch.ops.aten.hardtanh_backward.grad_input(g, part, low * ctx.size, high * ctx.size, grad_input=out)
            off += float(torch.dot(g.float(), q.float()) - torch.dot(out.float(), part.float()))
        slowed = off / ctx.size * (x.numel() / len(x) * high) ** -0.5
        return passed, torch.tensor(slowed), None, None


def _pieces(x: Tensor) -> list[Tensor]:
    """The numbers in the order they lie in memory."""
    flat = x.permute(0, 2, 3, 1).reshape(-1) if x.dim() == 4 else x.reshape(-1)
    return list(torch.split(flat, _PIECE))


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.contiguous_format
