"""Gradients at the outputs of linear layers: what an error there costs the whole network.

Import this only after ``torch_extra.require_torch()``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from scrimp import models
from scrimp.calibrate.states import hold
from scrimp.errors import Refused
from scrimp.progress import SILENT, Progress
from scrimp.quantize import yaqa
from scrimp.quantize.decoded import decode
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor
from scrimp.train.executor import Network, run
from scrimp.train.student import check_head
from scrimp.train.torch_extra import has_fast_halves

#: Tokens whose logits are held at once.
TOKENS_AT_ONCE = 128


def measure(
    source: Source,
    names: Collection[str],
    windows: NDArray[np.int32],
    *,
    seed: int = 0,
    directory: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, F32]:
    """``G = mean over tokens of g gᵀ`` (N, N) of each matrix, g being the gradient of ``-log p(y)`` at its outputs.

    y is drawn, at every position of ``windows (W, T)``, from what the network itself says comes next; so the second
    derivative of KL(network ‖ other) at the network is E[g gᵀ], here as if the tokens of a window were independent.

    Matrices of more than ``yaqa.MAX_ROWS`` outputs are left out, and the head, whose outputs are the logits themselves.
    Many are held in a nameless file in ``directory``. Refused where the logits are not finite.
    """
    _, program = models.build(source.config)
    check_head(program)
    kind = torch.bfloat16 if has_fast_halves() else torch.float32
    rows = {name: program.matrices[name][0] for name in names if name not in program.ops[-1].weights}
    rows = {name: n for name, n in rows.items() if n <= yaqa.MAX_ROWS}
    held = hold(
        (1, 1, sum(n * n for n in rows.values())), directory, what="Gradients", hint="make room, or use gptq"
    ).reshape(-1)
    held[:] = 0
    edges = np.cumsum([0, *(n * n for n in rows.values())])
    found = {name: held[at : at + n * n].reshape(n, n) for (name, n), at in zip(rows.items(), edges[:-1], strict=True)}
    matrices = {}
    for name in program.matrices:
        stored = source.read(name)
        assert isinstance(stored, QTensor)
        moments = torch.from_numpy(found[name]) if name in found else None
        matrices[name] = _Watched(torch.from_numpy(decode(stored)).to(kind), moments)
    vectors = {name: torch.from_numpy(np.array(source.read(name), np.float32)) for name in program.vectors}
    network, hidden = Network(program, matrices, vectors), program.ops[-1].inputs[0]
    head, drawn = matrices[program.ops[-1].weights[0]].weight, torch.Generator().manual_seed(seed)
    count = min(yaqa.WINDOWS, len(windows))
    chosen = windows[np.arange(count) * len(windows) // count]
    progress.start("gradients", count)
    for window in chosen:
        (states,) = run(network, torch.from_numpy(window[None].astype(np.int64)), (hidden,), last=-1)
        states.backward(_surprise(states.detach()[0], head, drawn)[None])  # type: ignore[no-untyped-call]
        progress.advance()
    progress.finish()
    held /= chosen.size
    return found


def check(source: Source, method: str) -> None:
    """Refused where a network has no such gradients."""
    try:
        check_head(models.build(source.config)[1])
    except Refused as error:
        raise Refused(f"The method {method} can't see what this network loses. {error.message}",
                      hint="use gptq") from None  # fmt: skip


def _surprise(states: Tensor, head: Tensor, drawn: torch.Generator) -> Tensor:
    """The gradient of ``-Σ log p(y)`` with respect to the states ``(T, K)`` that the head ``(V, K)`` multiplies."""
    found = torch.empty_like(states)
    for begin in range(0, len(states), TOKENS_AT_ONCE):
        at = slice(begin, begin + TOKENS_AT_ONCE)
        p = (states[at].to(head.dtype) @ head.T).float().softmax(dim=-1)
        if not bool(p.isfinite().all()):
            raise Refused("The network's logits are not finite when the calibration text runs through it.",
                          hint="the source may be damaged: scrimp eval it")  # fmt: skip
        y = torch.multinomial(p, 1, generator=drawn)
        p.scatter_add_(1, y, torch.full(y.shape, -1.0))
        found[at] = (p.to(head.dtype) @ head).float()
    return found


class _Watched:
    """A matrix ``(N, K)`` whose outputs' gradients are added up in ``moments (N, N)``, where it has any."""

    def __init__(self, weight: Tensor, moments: Tensor | None) -> None:
        self.weight, self.moments = weight, moments

    def product(self, x: Tensor) -> Tensor:
        found: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return found

    def rows(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens].float().requires_grad_()


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, watched: _Watched) -> Tensor:
        ctx.watched = watched
        return functional.linear(x.to(watched.weight.dtype), watched.weight).float()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None]:
        watched, gradient = ctx.watched, given[0].flatten(0, -2).to(ctx.watched.weight.dtype)
        if watched.moments is not None:
            watched.moments += gradient.T @ gradient
        return (gradient @ watched.weight).float().view(*given[0].shape[:-1], -1), None
