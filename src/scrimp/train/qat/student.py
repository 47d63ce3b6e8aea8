"""A Net in training: what torch runs, operation by operation, and what of it is stored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scrimp.formats import Format
from scrimp.models.cnn import INPUT, Net, Node, Pixels
from scrimp.tensors import F32, QTensor
from scrimp.train.qat.activations import Activation, Kind
from scrimp.train.qat.layers import QConv2d, QLinear
from scrimp.train.qat.rules import Rule
from scrimp.train.qat.weights import TrainedWeight

Spelled = tuple[Format, Rule]
#: What batch norm adds to a variance.
EPSILON = 1e-5


class Student(nn.Module):
    """Batch norm follows every product but the last, which has a bias; then the activation is rounded.

    A max-pool behind a product comes before its rounding, which makes the same numbers with a quarter of the work.
    While it learns, products and activations are of ``precision``; parameters, sums over a batch and all that a network
    at rest computes are float32.
    """

    def __init__(self, net: Net, seed: int = 0) -> None:
        super().__init__()
        self.net, shapes = net, net.shapes()
        generator = torch.Generator().manual_seed(seed)
        self.products, self.norms, self.activations = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        last = net.nodes[-1]
        for node in net.nodes:
            image = shapes[node.inputs[0]]
            if node.kind == "conv2d":
                self.products[node.name] = QConv2d(image.channels, node, generator)
            elif node.kind == "linear":
                self.products[node.name] = QLinear(image.size, node, generator)
            if node.multiplies and node is not last:
                norm = nn.BatchNorm2d if node.kind == "conv2d" else nn.BatchNorm1d
                self.norms[node.name] = norm(node.outputs, eps=EPSILON, momentum=None)  # plain means: course.rest
            if node.kind != "max_pool" and node is not last:
                self.activations[node.name] = Activation(relu=node.relu)
        self.weights = {name: _weight(product) for name, product in self.products.items()}
        self.roundings = {name: _activation(found) for name, found in self.activations.items()}
        self.bias = nn.Parameter(torch.zeros(last.outputs))
        self.precision = torch.float32
        self._late = {pool.inputs[0]: pool.name for pool in net.nodes if _pools_alone(pool, net)}

    def store_as(self, weights: Mapping[str, Spelled], activations: Kind) -> None:
        """From now on weights of operations in these formats, and activations so."""
        for name, weight in self.weights.items():
            weight.store_as(*weights[name])
        for activation in self.roundings.values():
            activation.kind = activations

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (n, channels, height, width) in numbers (:func:`numbers`) → logits."""
        made = {INPUT: x.to(self.precision) if self.training else x}
        for node in self.net.nodes:
            made[node.name] = self._run(node, [made[name] for name in node.inputs])
        return made[self.net.nodes[-1].name].flatten(1).float()

    def settle(self) -> None:
        """After a step of the optimizer."""
        for weight in self.weights.values():
            weight.settle()
        for activation in self.roundings.values():
            activation.settle()

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x = inputs[0]
        if node.multiplies:
            x = self.products[node.name](x)
            x = self.norms[node.name](x) if node.name in self.norms else x + _like(self.bias, x)
        elif node.kind == "add":
            x = x + inputs[1]
        elif node.kind == "avg_pool":
            x = functional.avg_pool2d(x, node.kernel, node.stride)
        else:
            x = functional.max_pool2d(x, node.kernel, node.stride)
            before = node.inputs[0]
            return self.activations[before](x) if before in self._late else x
        if node.name in self._late or node.name not in self.activations:
            return x
        rounded: Tensor = self.activations[node.name](x)
        return rounded

    def tensors(self) -> dict[str, QTensor | F32]:
        """All that is stored, as :meth:`Net.tensors` lists it: batch norms folded into gain and bias."""
        found: dict[str, QTensor | F32] = {}
        for node in self.net.nodes:
            if node.multiplies:
                found[f"{node.name}.weight"] = self.weights[node.name].tensor()
                gain, bias = self._folded(node)
                found[f"{node.name}.gain"], found[f"{node.name}.bias"] = gain, bias
            if node.name in self.roundings:
                found[f"{node.name}.step"] = self.roundings[node.name].step().reshape(1).numpy().copy()
        return found

    def _folded(self, node: Node) -> tuple[F32, F32]:
        """``γ (x − μ) / √(σ² + EPSILON) + β = gain · x + bias``, in float64, rounded once."""
        if node.name not in self.norms:
            return np.ones(node.outputs, np.float32), self.bias.detach().numpy().copy()
        return fold(self.norms[node.name])


def fold(norm: nn.Module) -> tuple[F32, F32]:
    """Gain and bias of a batch norm that is no longer trained."""
    gamma, beta, mean, variance = (
        _f64(getattr(norm, name)) for name in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / np.sqrt(variance + EPSILON)
    return gain.astype(np.float32), (beta - mean * gain).astype(np.float32)


def numbers(codes: NDArray[np.uint8], pixels: Pixels) -> Tensor:
    """Bytes ``(n, height, width, channels)`` → what the network reads, channels before rows in shape, not in memory."""
    table = ((np.arange(256) - pixels.zero) >> pixels.shift).astype(np.float32) * np.float32(pixels.step)
    return torch.from_numpy(table[codes]).permute(0, 3, 1, 2)


def _pools_alone(pool: Node, net: Net) -> bool:
    """Whether a max-pool is all that reads a product."""
    if pool.kind != "max_pool":
        return False
    readers = [node for node in net.nodes if pool.inputs[0] in node.inputs]
    return len(readers) == 1 and any(node.name == pool.inputs[0] and node.multiplies for node in net.nodes)


def _weight(product: nn.Module) -> TrainedWeight:
    assert isinstance(product, QLinear | QConv2d)
    return product.weight


def _activation(module: nn.Module) -> Activation:
    assert isinstance(module, Activation)
    return module


def _like(vector: Tensor, x: Tensor) -> Tensor:
    return vector.view(1, -1, 1, 1) if x.dim() == 4 else vector


def _f64(values: Tensor) -> NDArray[np.float64]:
    return values.detach().numpy().astype(np.float64)
