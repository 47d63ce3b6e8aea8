"""KL(original ‖ student) of the next token, from hidden states: logits exist only for a few tokens at a time.

All logits of a window would take 100 MB for a vocabulary of 50,000, and softmax and its gradient twice that again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from scrimp.train.quantized_weight import FixedWeight, QuantizedWeight

#: Tokens whose logits are held at once.
TOKENS_AT_ONCE = 128


def next_token_kl(hidden: Tensor, head: QuantizedWeight | FixedWeight, target: Tensor, target_head: Tensor) -> Tensor:
    """Mean over the tokens of ``Σ p (log p - log q)`` in nats, ``p = softmax(target Pᵀ)``, ``q = softmax(hidden Wᵀ)``.

    Shapes
        hidden, target (…, K); the head's W and ``target_head`` P (V, K); V may be larger than what hidden states say
        of, so both are read in chunks of tokens.
    """
    parameters = tuple(head.parameters.values()) if isinstance(head, QuantizedWeight) else ()
    found: Tensor = _NextTokenKL.apply(  # type: ignore[no-untyped-call]
        hidden, head, target, target_head, torch.is_grad_enabled(), *parameters
    )
    return found


class _NextTokenKL(Function):
    """The gradient ``(q - p) / tokens`` is known as soon as the loss is: it is made on the way there."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: QuantizedWeight | FixedWeight,
        target: Tensor,
        target_head: Tensor,
        learns: bool,
        *parameters: Tensor,
    ) -> Tensor:
        half = learns and head.half
        kind = torch.bfloat16 if half else torch.float32
        dense, expected = head.dense().to(kind), target_head.to(kind)
        rows, targets = hidden.detach().flatten(0, -2).to(kind), target.flatten(0, -2).to(kind)
        to_head = torch.zeros(dense.shape) if learns and any(ctx.needs_input_grad[5:]) else None
        to_hidden = torch.empty(rows.shape) if learns else None
        total = 0.0
        for begin in range(0, len(rows), TOKENS_AT_ONCE):
            at = slice(begin, begin + TOKENS_AT_ONCE)
            log_p = functional.log_softmax((targets[at] @ expected.T).float(), dim=-1)
            log_q = functional.log_softmax((rows[at] @ dense.T).float(), dim=-1)
            p = log_p.exp()
            total += float(torch.sum(p * log_p.sub_(log_q), dtype=torch.float64))
            if to_hidden is not None:
                apart = log_q.exp_().sub_(p).div_(len(rows)).to(kind)
                to_hidden[at] = apart @ dense
                if to_head is not None:
                    to_head += apart.T @ rows[at]
        ctx.own = () if to_head is None or not isinstance(head, QuantizedWeight) else head.gradients(to_head)
        ctx.to_hidden = None if to_hidden is None else to_hidden.view(hidden.shape)
        return torch.tensor(total / len(rows))

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        own = [None if part is None else part * given[0] for part in ctx.own]
        missing = len(ctx.needs_input_grad) - 5 - len(own)
        return ctx.to_hidden * given[0], None, None, None, None, *own, *[None] * missing
