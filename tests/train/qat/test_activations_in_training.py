"""Activations in eight bits: numbers and gradients beside LSQ's equations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scrimp.train.qat.activations import Activation  # noqa: E402


def made(*, relu, kind="static", shape=(4, 3, 5, 6), seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    activation = Activation(relu=relu)
    activation.kind = kind
    return x, activation


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (7, 40)])
@pytest.mark.parametrize("reach", [1.0, 0.2])
def test_a_learned_step_is_lsq_s(relu, shape, reach):
    x, activation = made(relu=relu, shape=shape)
    activation(x)
    activation.first *= reach  # so that numbers are clipped as well
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    activation(x).backward(given)
    low, step = (0 if relu else -128), float(activation.first)
    v = x.detach().numpy().astype(np.float64) / step
    code, g = np.clip(np.rint(v), low, 127), given.numpy().astype(np.float64)
    inside = (v > low) & (v < 127)
    assert inside.any()
    assert not inside.all() or (not relu and reach == 1)
    np.testing.assert_allclose(activation(x).detach().numpy(), code * step, rtol=2**-22, atol=0)
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, given.numpy(), 0))
    off = g * np.where(inside, code - v, code)
    features = x.numel() / len(x)
    factor = step / np.sqrt(features * 127)  # the scale is counted in first steps
    error = 2**-23 * (x.numel() + 8) * np.abs(g * (np.abs(code) + np.abs(v))).sum() * factor
    assert abs(float(activation.scale.grad) - off.sum() * factor) <= error


def test_memory_order_makes_no_difference():
    x, activation = made(relu=True)
    plain = activation(x)
    other = activation(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(plain, other)


def test_a_dynamic_step_is_the_largest_of_each_picture():
    x, activation = made(relu=False, kind="dynamic")
    y = activation(x)
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad, torch.ones_like(x))
    for one, rounded in zip(x.detach(), y.detach(), strict=True):
        codes = (rounded / (one.abs().max() / 127)).numpy()
        np.testing.assert_allclose(codes, np.rint(codes), atol=127 * 2**-22)
        assert float((rounded - one).abs().max()) <= float(one.abs().max()) / 127 / 2 * (1 + 2**-20)


def test_float_activations_remember_what_a_store_s_step_must_reach():
    x, activation = made(relu=True, kind="float")
    assert torch.equal(activation(x), x.clamp(min=0))
    activation.eval()
    activation(9 * x)  # what is only judged by does not count
    assert float(activation.step().detach()) == pytest.approx(float(x.detach().max()) / 127, rel=1e-6)
