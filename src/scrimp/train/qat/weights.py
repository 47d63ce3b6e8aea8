"""A weight in training: latent numbers, and what is stored of them, which is what the network multiplies with.

The way back is straight through the rounding (Bengio et al. 2013, arXiv:1308.3432), with these rules::

    absmean  scale = mean |w|; the gradient passes everywhere               Ma et al. 2024, arXiv:2402.17764 (b1.58)
    sign     ±mean |w|; the gradient passes where |w| < scale               Rastegari et al. 2016, arXiv:1603.05279
    absmax   scale = max |w| / largest number; passes everywhere
    octav    clipping point by Newton's iteration; beyond it the gradient
             shrinks as clip / |w|                                          Sakr et al. 2022, arXiv:2206.06501
    lsq      learned scale, gradient passes within the levels               Esser et al. 2020, arXiv:1902.08153
    seq      the same with levels that fill the range, passes up to
             99 % of it: 1½ scales for ternary, 2 for two bits              Liu et al. 2025, arXiv:2502.02631
    kmeans   learned levels, in 64ths of the scale: each follows the sum of
             its weights' gradients                                         Han et al. 2016, arXiv:1510.00149
    format   the format's own rule through formats.encode; passes everywhere

Scales are rounded to the type they are stored in before anything is divided by them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from scrimp.formats import Format
from scrimp.formats.scale_types import LARGEST, from_f32
from scrimp.tensors import QTensor, encode_weight, from_codes, from_floats
from scrimp.train.qat.rules import SEQ_WINDOW, Levels, Rule, best_step, levels

_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
#: Smallest scale: that of float16.
_TINY = 2.0**-24
#: Of a learned scale over its first value.
_LEAST = 0.01
_NEWTON_STEPS = 10
_LLOYD_STEPS = 20


class TrainedWeight(nn.Module):
    """``W (N, K)``, K in the order it is stored in.

    ``latent`` (N, K) learns; so does ``scale`` under lsq and seq, counted in the scales it began with (``first``), so
    that a step of Adam means the same everywhere; and ``codebook`` under kmeans.
    """

    latent: nn.Parameter
    first: Tensor  #: (rows, groups, 1)

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(rows, columns))
        self.scale = nn.Parameter(torch.ones(1))
        self.codebook = nn.Parameter(torch.zeros(1))
        self.register_buffer("first", torch.ones(1))
        self.format: Format | None = None
        self.rule: Rule = "float"

    def store_as(self, format: Format, rule: Rule) -> None:
        """From now on in ``format``; where it is another, learned scales and levels begin anew."""
        if (self.format, self.rule) == (format, rule):
            return
        self.format, self.rule = format, rule
        if rule in ("lsq", "seq", "kmeans"):
            with torch.no_grad():
                blocks = to_blocks(self.latent, format)
                self.first = _first(blocks, format, rule)
                self.scale = nn.Parameter(torch.ones_like(self.first))
                if rule == "kmeans":
                    self.codebook = nn.Parameter(lloyd(blocks / self.first, format.element.levels))

    def hold(self, frozen: bool) -> None:
        """Whether codes and scales stay as they are."""
        for values in (self.latent, self.scale, self.codebook):
            values.requires_grad_(not frozen)

    def forward(self) -> Tensor:
        """``Ŵ (N, K)`` as it will be stored and decoded."""
        format = self.format
        if format is None or self.rule == "float":
            return self.latent
        if self.rule == "format":
            made = torch.from_numpy(encode_weight(self.latent.detach().numpy(), format).dequantize())
            return through(self.latent, made)
        blocks = to_blocks(self.latent, format)
        scales = self._scales(blocks, format)
        if self.rule == "kmeans":
            made = _Nearest.apply(blocks, scales, in_64ths(self.codebook))  # type: ignore[no-untyped-call]
        else:
            made = _Rounded.apply(blocks, scales, levels(format, self.rule), self.rule)  # type: ignore[no-untyped-call]
        return from_blocks(made, self.latent, format)

    def settle(self) -> None:
        """After a step: scales stay positive, levels in order."""
        with torch.no_grad():
            self.scale.clamp_(min=_LEAST)
            self.codebook.copy_(self.codebook.sort().values)

    def tensor(self) -> QTensor:
        """As it is stored: the codes and scales that :meth:`forward` used."""
        format = self.format
        assert format is not None
        weight = self.latent.detach().numpy()
        if self.rule == "float":
            return from_floats(format, np.ascontiguousarray(weight))
        if self.rule == "format":
            return encode_weight(np.ascontiguousarray(weight), format)
        with torch.no_grad():
            blocks = to_blocks(self.latent, format)
            scales = self._scales(blocks, format)
            if self.rule == "kmeans":
                book = in_64ths(self.codebook)
                codes = torch.bucketize(blocks / scales, _middles(book))
            else:
                known = levels(format, self.rule)
                book = torch.arange(known.top + 1) * known.step - known.zero
                codes = to_codes(blocks / scales, known)
            plain = from_blocks(codes, self.latent, format).to(torch.uint8).numpy()
            stored = from_f32(scales.squeeze(-1).numpy(), str(format.scale))
        learned = format.element.name.startswith("kmeans")
        return from_codes(format, plain, stored, None, {"codebook": book.float().numpy()} if learned else {})

    def _scales(self, blocks: Tensor, format: Format) -> Tensor:
        """(rows, groups, 1), as they are stored; with a gradient where they are learned."""
        if self.rule in ("lsq", "seq"):
            positive = levels(format, self.rule).high
            factor = (blocks.numel() / self.first.numel() * positive) ** -0.5
            return as_stored(_Slowed.apply(self.scale, factor) * self.first, format)  # type: ignore[no-untyped-call]
        if self.rule == "kmeans":
            return as_stored(self.first, format)
        with torch.no_grad():
            return as_stored(_chosen(blocks, format, self.rule), format)


def to_blocks(weight: Tensor, format: Format) -> Tensor:
    """``(N, K)`` → ``(rows, groups, inputs)`` that share a scale; a ragged last group is filled with zeros."""
    if format.block == "tensor":
        return weight.reshape(1, 1, -1)
    group = format.group(weight.shape[1])
    missing = -weight.shape[1] % group
    return (functional.pad(weight, (0, missing)) if missing else weight).view(weight.shape[0], -1, group)


def from_blocks(blocks: Tensor, like: Tensor, format: Format) -> Tensor:
    if format.block == "tensor":
        return blocks.view(like.shape)
    return blocks.flatten(1)[:, : like.shape[1]]


def as_stored(scales: Tensor, format: Format) -> Tensor:
    """Rounded to the scale's type, straight through."""
    kind = str(format.scale)
    with torch.no_grad():
        found = scales.clamp(_TINY, LARGEST[kind]).to(_DTYPES[kind]).float()
    return through(scales, found)


def in_64ths(codebook: Tensor) -> Tensor:
    """Levels as integers lower them: multiples of 1/64, straight through."""
    with torch.no_grad():
        found = (codebook * 64).round_().clamp_(-127, 127) / 64
    return through(codebook, found)


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


class _Rounded(Function):
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


class _Nearest(Function):
    """``scale · level`` of the nearest level of a codebook in ascending order."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scales: Tensor, codebook: Tensor) -> Tensor:
        codes = torch.bucketize(w / scales, _middles(codebook))
        ctx.save_for_backward(codes, scales)
        ctx.count = len(codebook)
        return codebook[codes] * scales

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (codes, scales) = given, ctx.saved_tensors
        sums = torch.bincount(codes.flatten(), (gradient * scales).flatten(), minlength=ctx.count)
        return gradient, None, sums.to(gradient.dtype)


class _Slowed(Function):
    """The value, and a factor of its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        return given[0] * ctx.factor, None


def _middles(codebook: Tensor) -> Tensor:
    return (codebook[1:] + codebook[:-1]) / 2


def _first(blocks: Tensor, format: Format, rule: Rule) -> Tensor:
    """Where learned scales begin; of a codebook's, the largest magnitude, which then stays."""
    if rule == "kmeans":
        return blocks.abs().amax(dim=2, keepdim=True).clamp(min=_TINY)
    return (best_step(format.element) * blocks.square().mean(dim=2, keepdim=True).sqrt()).clamp(min=_TINY)


def _chosen(blocks: Tensor, format: Format, rule: Rule) -> Tensor:
    if rule in ("absmean", "sign"):
        return blocks.abs().mean(dim=2, keepdim=True)
    largest = levels(format, rule).high
    if rule == "absmax":
        return blocks.abs().amax(dim=2, keepdim=True) / largest
    return octav(blocks, format.element.bits) / -levels(format, rule).low


def octav(blocks: Tensor, bits: int) -> Tensor:
    """The clipping point with the least squared error, of rounding and of clipping.

    ``c ← Σ |w| [|w| > c] / (4^-bits / 3 · Σ [0 < |w| ≤ c] + Σ [|w| > c])``; the start is the mean magnitude.
    Source: Sakr et al. 2022, arXiv:2206.06501, algorithm 1.
    """
    size = blocks.abs()
    clip = size.mean(dim=2, keepdim=True)
    for _ in range(_NEWTON_STEPS):
        beyond = size > clip
        weighed = 4.0**-bits / 3 * ((size <= clip) & (size > 0)).sum(2, keepdim=True) + beyond.sum(2, keepdim=True)
        clip = (size * beyond).sum(2, keepdim=True) / weighed.clamp(min=_TINY)
    return clip


def lloyd(values: Tensor, count: int) -> Tensor:
    """``count`` levels by Lloyd's iteration from equally spaced ones, as Han et al. start; in ascending order."""
    flat = values.flatten()
    found = torch.linspace(float(flat.min()), float(flat.max()), count)
    for _ in range(_LLOYD_STEPS):
        codes = torch.bucketize(flat, _middles(found))
        counts = torch.bincount(codes, minlength=count)
        sums = torch.bincount(codes, flat, minlength=count)
        found = torch.where(counts > 0, (sums / counts.clamp(min=1)).to(flat.dtype), found)
    return found.sort().values
