"""What is trained is what is stored: numbers, bytes and gradients of quantized weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scrimp.formats import parse
from scrimp.tensors import encode_weight
from scrimp.train.quantized_weight import QuantizedWeight, trains, trains_codes

FORMATS = [
    "int2:g32", "int2z:g32", "int3:g64", "int3z:row", "int4:tensor", "int4z:g128", "int5:row", "int6z:tensor",
    "int8:g64", "int8z:g32", "int4:g32@f32", "int3z:g64@bf16", "ternary", "ternary:g64", "binary", "nf4:g64", "kmeans4",
]  # fmt: skip
INTEGERS = [name for name in FORMATS if trains_codes(parse(name))]
#: 24 rows fill a tile and a half; 96 inputs fill a group of 64 and a half.
SHAPE = (24, 96)


def weight_of(format: str, seed: int = 0):
    matrix = np.random.default_rng(seed).normal(0, 0.05, SHAPE).astype(np.float32)
    return matrix, encode_weight(matrix, parse(format))


def nudge(weight: QuantizedWeight, seed: int = 1, size: float = 0.6) -> None:
    generator = torch.Generator().manual_seed(seed)
    for values in weight.parameters.values():
        values.data += size * torch.randn(values.shape, generator=generator)
    weight.settle()


def same_bytes(a, b) -> bool:
    return a.parts().keys() == b.parts().keys() and all(
        np.array_equal(part.view(np.uint8), b.parts()[name].view(np.uint8)) for name, part in a.parts().items()
    )


@pytest.mark.parametrize("format", FORMATS)
def test_what_did_not_learn_is_stored_as_it_was(format):
    matrix, tensor = weight_of(format)
    assert same_bytes(QuantizedWeight(tensor).tensor(), tensor)
    assert same_bytes(QuantizedWeight(tensor, matrix).tensor(), tensor)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("codes", [False, True], ids=["codes stay", "codes learn"])
def test_the_weights_trained_with_are_those_that_will_be_decoded(format, codes):
    matrix, tensor = weight_of(format)
    weight = QuantizedWeight(tensor, matrix if codes else None)
    nudge(weight)
    stored = weight.tensor()
    assert np.array_equal(weight.dense().numpy(), stored.dequantize())
    rows = torch.tensor([3, 23, 3])
    assert np.array_equal(weight.dense_rows(rows).numpy(), stored.dequantize()[[3, 23, 3]])
    assert stored.nbytes == tensor.nbytes
    if "codes" not in weight.parameters:
        assert np.array_equal(stored.codes(), tensor.codes())
    else:
        assert not np.array_equal(stored.codes(), tensor.codes())


@pytest.mark.parametrize("format", ["int3:g64@f32", "int4z:g32@f32", "int4:tensor@f32", "int2z:row@f32", "nf4:g64@f32"])
def test_gradients_of_scales_and_mins_are_finite_differences(format):
    """float32 scales are not rounded, so the output is linear in them: a difference of any size is the slope."""
    _, tensor = weight_of(format)
    weight = QuantizedWeight(tensor)
    x = torch.randn((5, SHAPE[1]), generator=torch.Generator().manual_seed(2))
    pull = torch.randn((5, SHAPE[0]), generator=torch.Generator().manual_seed(3))
    (weight.product(x) * pull).sum().backward()
    terms = float((pull.abs().T @ x.abs() * weight.dense().abs()).sum())
    for name, values in weight.parameters.items():
        direction = torch.randn(values.shape, generator=torch.Generator().manual_seed(4))
        slope = float((values.grad * direction).sum())
        sides = []
        for side in (0.5, -0.5):
            values.data = side * direction
            sides.append(float((x.double() @ weight.dense().double().T * pull).sum()))
        values.data = torch.zeros_like(values)
        # products and sums of float32: rounded once per term and once per addition of a chain
        assert sides[0] - sides[1] == pytest.approx(slope, abs=8 * sum(SHAPE) * 2**-24 * terms), name


@pytest.mark.parametrize("format", INTEGERS)
def test_gradients_of_codes_pass_straight_through(format):
    """As if the code were the latent value: a step of the code is a step of ``scale`` times the element's own."""
    matrix, tensor = weight_of(format)
    weight = QuantizedWeight(tensor, matrix)
    x = torch.randn((5, SHAPE[1]), generator=torch.Generator().manual_seed(2))
    weight.product(x).sum().backward()
    step = 1 if tensor.mins is not None else tensor.format.element.step
    groups = np.arange(SHAPE[1]) // tensor.format.group(SHAPE[1])
    scales = np.broadcast_to(tensor.row_scales(), (SHAPE[0], tensor.format.groups(SHAPE[1])))[:, groups]
    expected = x.sum(dim=0).numpy() * scales * step
    assert np.allclose(weight.parameters["codes"].grad.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_latent_codes_start_where_the_original_lies():
    matrix, tensor = weight_of("int4:g32@f32")
    latent = QuantizedWeight(tensor, matrix).parameters["codes"].detach().numpy()
    scales = np.repeat(tensor.row_scales(), 32, axis=1)
    inside = np.abs(latent - tensor.codes()) < 0.48
    assert inside.mean() > 0.9
    assert np.allclose(((latent - 8) * scales)[inside], matrix[inside], atol=1e-6)


def test_latent_codes_that_were_chosen_against_the_nearest_start_away_from_the_border():
    matrix, tensor = weight_of("int4:g32@f32")
    plain = QuantizedWeight(tensor, matrix).parameters["codes"].detach().numpy()
    matrix[0, 0] += 2 * tensor.row_scales()[0, 0]
    matrix[1, 3] -= 2 * tensor.row_scales()[1, 0]
    latent = QuantizedWeight(tensor, matrix).parameters["codes"].detach().numpy()
    expected = plain.copy()
    expected[0, 0], expected[1, 3] = tensor.codes()[0, 0] + 0.25, tensor.codes()[1, 3] - 0.25
    assert np.array_equal(latent, expected)


def test_latent_codes_of_a_rewritten_matrix_start_on_the_codes():
    """A rotated matrix, say: where its original lies says nothing of its codes."""
    _, tensor = weight_of("int4:g32")
    other, _ = weight_of("int4:g32", seed=7)
    latent = QuantizedWeight(tensor, other).parameters["codes"].detach().numpy()
    assert np.array_equal(latent, tensor.codes())


def test_rows_send_their_gradient_to_their_own_scales():
    _, tensor = weight_of("int4:g32@f32")
    weight = QuantizedWeight(tensor)
    weight.rows(torch.tensor([[2, 5, 2]])).sum().backward()
    gradient = weight.parameters["scales"].grad
    assert set(gradient.abs().sum(dim=1).nonzero().flatten().tolist()) == {2, 5}
    spread = np.sqrt(np.square(tensor.codes() - 8.0).mean())
    sums = tensor.dequantize()[[2, 5]].reshape(2, -1, 32).sum(axis=2) * [[2], [1]] / (2 * spread)
    assert np.allclose(gradient[[2, 5]].numpy(), sums, atol=1e-6)


@pytest.mark.parametrize("format", ["f16", "nvfp4", "q4_k", "mxfp4", "int4:g32@e8m0"])
def test_formats_whose_scales_cannot_follow_a_gradient_do_not_train(format):
    assert not trains(parse(format))


def test_half_products_are_off_by_their_roundings_and_only_where_a_gradient_passes():
    """bfloat16 has 8 bits: each factor and each result is off by 2^-8 of itself at most half, sums are float32."""
    matrix, tensor = weight_of("int3:g64")
    whole, half = QuantizedWeight(tensor, matrix), QuantizedWeight(tensor, matrix, half=True)
    x = torch.randn((5, SHAPE[1]), generator=torch.Generator().manual_seed(2))
    found = []
    for weight in (whole, half):
        leaf = x.clone().requires_grad_()
        y = weight.product(leaf)
        y.sum().backward()
        found.append((y.detach(), leaf.grad))
    dense, ones = weight.dense(), torch.ones((5, SHAPE[0]))
    sizes = (x.abs() @ dense.abs().T, ones @ dense.abs())
    for exact, rounded, size in zip(found[0], found[1], sizes, strict=True):
        assert not torch.equal(exact, rounded)
        assert bool(((exact - rounded).abs() <= 2**-8 * 1.6 * size).all())
    with torch.no_grad():
        assert torch.equal(whole.product(x), half.product(x))
