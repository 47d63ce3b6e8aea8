"""The loss against its definition in float64, and its gradient against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scrimp.formats import parse
from scrimp.tensors import encode_weight
from scrimp.train import next_token_kl as kl
from scrimp.train.quantized_weight import FixedWeight, QuantizedWeight


def made(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def definition(
    hidden: torch.Tensor, head: torch.Tensor, target: torch.Tensor, target_head: torch.Tensor
) -> torch.Tensor:
    p, q = (torch.log_softmax((h @ w.T).double(), dim=-1) for h, w in ((target, target_head), (hidden, head)))
    return (p.exp() * (p - q)).sum(dim=-1).mean()


@pytest.mark.parametrize("at_once", [3, 256])
def test_it_is_its_definition_and_so_is_its_gradient(at_once, monkeypatch):
    monkeypatch.setattr(kl, "TOKENS_AT_ONCE", at_once)
    head, hidden, target = made(0, 50, 16), made(1, 2, 7, 16).requires_grad_(), made(2, 2, 7, 16)
    found = kl.next_token_kl(hidden, FixedWeight(head.numpy()), target, head * 1.1)
    found.backward()
    copy = hidden.detach().clone().requires_grad_()
    expected = definition(copy, head, target, head * 1.1)
    expected.backward()
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    assert np.allclose(hidden.grad.numpy(), copy.grad.numpy(), atol=1e-6)


def test_a_head_that_learns_gets_its_gradient():
    tensor = encode_weight(made(0, 32, 64).numpy(), parse("int4:g32@f32"))
    head, hidden, target = QuantizedWeight(tensor), made(1, 5, 64) / 8, made(2, 5, 64) / 8
    kl.next_token_kl(hidden, head, target, made(0, 32, 64)).backward()
    dense = head.dense().requires_grad_()
    definition(hidden, dense, target, made(0, 32, 64)).backward()
    spread = float(np.sqrt(np.square(tensor.codes() - 8.0).mean()))
    expected = (dense.grad * dense.detach()).view(32, 2, 32).sum(dim=2) / (2 * spread)
    assert np.allclose(head.parameters["scales"].grad.numpy(), expected.numpy(), atol=1e-6)


def test_without_gradients_it_is_the_same_number():
    head, hidden, target = FixedWeight(made(0, 50, 16).numpy()), made(1, 7, 16), made(2, 7, 16)
    with torch.no_grad():
        still = float(kl.next_token_kl(hidden, head, target, made(0, 50, 16)))
    assert still == float(kl.next_token_kl(hidden.requires_grad_(), head, target, made(0, 50, 16)).detach())


def test_equal_distributions_are_no_apart():
    head, hidden = made(0, 50, 16), made(1, 7, 16)
    assert abs(float(kl.next_token_kl(hidden, FixedWeight(head.numpy()), hidden, head))) < 1e-6
