"""Products with a weight in training: ``linear`` and ``conv2d`` on pictures in memory order (row, column, channel)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from scrimp.models.cnn import Node
from scrimp.train.qat.weights import TrainedWeight


class QLinear(nn.Module):
    """``x Ŵᵀ`` over all of a picture: (n, channels, height, width) or (n, K) → (n, N)."""

    def __init__(self, inputs: int, node: Node, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = _begun(node.outputs, inputs, generator)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x
        return functional.linear(flat, self.weight().to(flat.dtype))


class QConv2d(nn.Module):
    """A convolution with zero padding: (n, channels, height, width) in channels-last memory."""

    def __init__(self, channels: int, node: Node, generator: torch.Generator) -> None:
        super().__init__()
        self.node, self.channels = node, channels // node.groups
        self.weight = _begun(node.outputs, node.kernel * node.kernel * self.channels, generator)

    def forward(self, x: Tensor) -> Tensor:
        node = self.node
        weight = self.weight().to(x.dtype)
        kernels = weight.view(node.outputs, node.kernel, node.kernel, self.channels).permute(0, 3, 1, 2)
        return functional.conv2d(x, kernels, None, node.stride, node.padding, 1, node.groups)


def _begun(rows: int, columns: int, generator: torch.Generator) -> TrainedWeight:
    """He et al. 2015, arXiv:1502.01852, section 2.2: normal, variance 2 / K."""
    weight = TrainedWeight(rows, columns)
    with torch.no_grad():
        weight.latent.normal_(0, math.sqrt(2 / columns), generator=generator)
    return weight
