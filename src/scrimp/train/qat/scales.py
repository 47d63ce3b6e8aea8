"""Scales of weights in training: blocks, where learned ones begin, how others are chosen, how they are rounded."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scrimp.formats import Format
from scrimp.formats.scale_types import LARGEST
from scrimp.train.qat.rules import Rule, best_step, levels
from scrimp.train.qat.straight_through import middles, through

_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
#: Smallest scale: that of float16.
_TINY = 2.0**-24
_NEWTON_STEPS = 10
_LLOYD_STEPS = 20


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


def first(blocks: Tensor, format: Format, rule: Rule) -> Tensor:
    """Where learned scales begin; of a codebook's, the largest magnitude, which then stays."""
    if rule == "kmeans":
        return blocks.abs().amax(dim=2, keepdim=True).clamp(min=_TINY)
    return (best_step(format.element) * blocks.square().mean(dim=2, keepdim=True).sqrt()).clamp(min=_TINY)


def chosen(blocks: Tensor, format: Format, rule: Rule) -> Tensor:
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
        codes = torch.bucketize(flat, middles(found))
        counts = torch.bincount(codes, minlength=count)
        sums = torch.bincount(codes, flat, minlength=count)
        found = torch.where(counts > 0, (sums / counts.clamp(min=1)).to(flat.dtype), found)
    return found.sort().values
