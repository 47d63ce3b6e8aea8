"""Rounding with gradients: the forward pass is exact, the way back is a rule (Bengio et al. 2013, arXiv:1308.3432)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from scrimp.train.qat.rules import SEQ_WINDOW, Levels, Rule


def to_codes(v: Tensor, levels: Levels) -> Tensor:
    """Codes of ``v = w / scale``, as floats."""
    if levels.top == 1 and levels.zero == 1:  # binary: 0 is +1
        return (v >= 0).to(v.dtype)
    return ((v + levels.zero) / levels.step).round_().clamp_(0, levels.top)


def through(values: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` to the last bit, with the gradient of ``values``."""
    found: Tensor = _Through.apply(values, rounded)  # type: ignore[no-untyped-call]
    return found


class _Through(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor) -> Tensor:
        return rounded.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        return given[0], None


class Rounded(Function):
    """``scale · number`` of the nearest code; the way back is in the table above."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scales: Tensor, levels: Levels, rule: Rule) -> Tensor:
        v = w / scales
        numbers = to_codes(v, levels) * levels.step - levels.zero
        ctx.save_for_backward(v, numbers)
        ctx.levels, ctx.rule = levels, rule
        return numbers * scales

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (v, numbers) = given, ctx.saved_tensors
        return (*_straight_through(gradient, v, numbers, ctx.levels, ctx.rule), None, None)


def _straight_through(
    gradient: Tensor, v: Tensor, numbers: Tensor, levels: Levels, rule: Rule
) -> tuple[Tensor, Tensor | None]:
    """Gradients of weights and of scales."""
    if rule in ("absmean", "absmax"):
        return gradient, None
    if rule == "octav":
        return gradient * (-levels.low / v.abs()).clamp(max=1), None
    binary = levels.top == 1
    low, high = (-1.0, 1.0) if binary else (levels.low, levels.high)
    if rule == "seq":
        low, high = -(reach := SEQ_WINDOW * (levels.high + 0.5)), reach
    inside = ((v > low) & (v < high)).to(v.dtype)
    passed = gradient * inside
    if rule == "sign":
        return passed, None
    off = numbers if binary else numbers - v * inside
    return passed, (gradient * off).sum(dim=2, keepdim=True)


class Nearest(Function):
    """``scale · level`` of the nearest level of a codebook in ascending order."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scales: Tensor, codebook: Tensor) -> Tensor:
        codes = torch.bucketize(w / scales, middles(codebook))
        ctx.save_for_backward(codes, scales)
        ctx.count = len(codebook)
        return codebook[codes] * scales

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (codes, scales) = given, ctx.saved_tensors
        sums = torch.bincount(codes.flatten(), (gradient * scales).flatten(), minlength=ctx.count)
        return gradient, None, sums.to(gradient.dtype)


class Slowed(Function):
    """The value, and a factor of its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        return given[0] * ctx.factor, None


def middles(codebook: Tensor) -> Tensor:
    return (codebook[1:] + codebook[:-1]) / 2
