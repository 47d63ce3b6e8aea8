"""Adam with decoupled weight decay, and SGD with Nesterov's momentum: torch's own load a compiler, which takes seconds.

Sources: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2; Sutskever et al. 2013, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)
MOMENTUM = 0.9
EPSILON = 1e-8


class Optimizer:
    """``memory``: name → two tensors of a parameter's shape. Latent weights decay, nothing else does."""

    def __init__(self, kind: Literal["adam", "sgd"], decay: float) -> None:
        self.kind, self.decay = kind, decay
        self.memory: dict[str, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    def follow(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """From now on these; what has another shape than before is remembered anew."""
        kept = self.memory
        self.memory = {}
        for name, values in parameters.items():
            known = kept.get(name)
            fits = known is not None and known[0].shape == values.shape
            self.memory[name] = known if fits and known else (torch.zeros_like(values), torch.zeros_like(values))

    @torch.no_grad()
    def step(self, parameters: Mapping[str, nn.Parameter], rate: float) -> None:
        """One step along the gradients there are, which are then forgotten."""
        self.steps += 1
        for name, values in parameters.items():
            if values.grad is None:
                continue
            if self.decay and name.endswith("latent"):
                values.mul_(1 - rate * self.decay)
            (self._adam if self.kind == "adam" else self._sgd)(values, values.grad, self.memory[name], rate)
            values.grad = None

    def _adam(self, values: Tensor, gradient: Tensor, memory: tuple[Tensor, Tensor], rate: float) -> None:
        (first, second), (mean, square) = BETAS, memory
        mean.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (square / (1 - second**self.steps)).sqrt_().add_(EPSILON)
        values.addcdiv_(mean, size, value=-rate / (1 - first**self.steps))

    def _sgd(self, values: Tensor, gradient: Tensor, memory: tuple[Tensor, Tensor], rate: float) -> None:
        speed = memory[0]
        speed.mul_(MOMENTUM).add_(gradient)
        values.add_(gradient + MOMENTUM * speed, alpha=-rate)
