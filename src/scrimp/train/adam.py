"""Adam, with gradients clipped kind by kind. torch has one too, but loads a compiler with it, which takes seconds.

Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

#: Memory of gradients, and of their squares.
BETAS = (0.9, 0.98)
EPSILON = 1e-12
#: Largest norm of the gradient of one kind of parameters.
CLIP = 1.0


class Adam:
    """``parameters``: kind → name → values. ``memory`` holds two tensors for each, as ``kind/name``."""

    def __init__(self, parameters: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.parameters = parameters
        self.memory = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in flat(parameters).items()}

    def forget_gradients(self) -> None:
        for values in flat(self.parameters).values():
            values.grad = None

    def norms(self) -> dict[str, float]:
        """Of the gradient of each kind; what did not matter has none."""
        return {
            kind: math.sqrt(sum(float(p.grad.square().sum()) for p in named.values() if p.grad is not None))
            for kind, named in self.parameters.items()
        }

    def step(self, count: int, rates: Mapping[str, float]) -> None:
        """The step of number ``count``, from 1; gradients whose norm is above ``CLIP`` are shortened to it."""
        first, second = BETAS
        norms = self.norms()
        for kind, named in self.parameters.items():
            shorten = min(1.0, CLIP / norms[kind]) if norms[kind] > 0 else 1.0
            rate = rates[kind] / (1 - first**count)
            for name, values in named.items():
                if values.grad is None:
                    continue
                mean, square = self.memory[f"{kind}/{name}"]
                gradient = values.grad.mul_(shorten)
                mean.lerp_(gradient, 1 - first)
                square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
                size = torch.div(square, 1 - second**count, out=gradient).sqrt_().add_(EPSILON)
                values.data.addcdiv_(mean, size, value=-rate)


def flat(parameters: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """kind → name → values, as ``kind/name`` → values."""
    return {f"{kind}/{name}": values for kind, named in parameters.items() for name, values in named.items()}
