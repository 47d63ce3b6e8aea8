"""The definition of integer arithmetic beside torch's convolutions and plain Python integers."""

import numpy as np
import pytest

from scrimp.integer.program import Add, AvgPool, IntegerProgram, MaxPool, Product, Requantize, check
from scrimp.integer.reference import from_bytes, product, requantize, run, step
from scrimp.models.cnn import Image, Pixels

torch = pytest.importorskip("torch")
GREY = Pixels(128, 0, 1 / 128)
PLAIN = Requantize(np.ones(1, np.int32), np.zeros(1, np.int32), 0, 0, -(1 << 31), (1 << 31) - 1)


def a_product(rng, n=6, channels=4, kernel=(3, 3), stride=1, padding=1, groups=1, requantize=PLAIN):
    weight = rng.integers(-7, 8, (n, kernel[0] * kernel[1] * channels // groups)).astype(np.int8)
    return Product("c", 0, 1, weight, "int4", kernel, stride, padding, groups, requantize)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_product_is_torch_s_convolution(stride, padding, groups):
    rng = np.random.default_rng(stride + 2 * padding + 4 * groups)
    op = a_product(rng, n=8, stride=stride, padding=padding, groups=groups)
    x = rng.integers(-128, 128, (3, 7, 6, 4)).astype(np.int8)
    kernels = torch.from_numpy(op.weight.reshape(8, 3, 3, -1).astype(np.float64)).permute(0, 3, 1, 2)
    images = torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.conv2d(images, kernels, stride=stride, padding=padding, groups=groups)
    np.testing.assert_array_equal(product(op, x), expected.permute(0, 2, 3, 1).numpy())


def test_pools_are_torch_s():
    x = np.random.default_rng(0).integers(-128, 128, (2, 7, 6, 3)).astype(np.int8)
    images = torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2)
    highest = torch.nn.functional.max_pool2d(images, 3, 2).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(step(MaxPool("m", 0, 1, 3, 2), [x]), highest.numpy())
    sums = torch.nn.functional.avg_pool2d(images, 2, 2, divisor_override=1).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(step(AvgPool("a", 0, 1, 2, 2, PLAIN), [x]), sums.numpy())


def test_codes_are_rounded_and_clamped_as_python_s_integers_are():
    rng = np.random.default_rng(1)
    sums = rng.integers(-(1 << 20), 1 << 20, (50, 8)).astype(np.int32)
    by = Requantize(rng.integers(-900, 900, 8).astype(np.int32), rng.integers(-9999, 9999, 8).astype(np.int32),
                    3, 12, -128, 127)  # fmt: skip
    channels = list(zip(by.multiplier.tolist(), by.offset.tolist(), strict=True))
    expected = [
        [min(127, max(-128, ((s >> 3) * m + b) >> 12)) for s, (m, b) in zip(row, channels, strict=True)]
        for row in sums.tolist()
    ]
    np.testing.assert_array_equal(requantize(sums, by), expected)


def test_an_addition_is_weighed_and_rounded():
    a, b = (np.array([[[[v]]]], np.int8) for v in (100, -128))
    add = Add("+", (0, 1), 2, (300, 200), 128, 8, 0, 127)
    assert step(add, [a, b]).item() == (100 * 300 - 128 * 200 + 128) >> 8


def test_all_bytes_become_what_the_definition_says():
    bytes_ = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(from_bytes(bytes_, GREY), np.arange(256) - 128)
    np.testing.assert_array_equal(from_bytes(bytes_, Pixels(0, 1, 1 / 127)), np.arange(256) // 2)


def test_a_network_runs_through():
    rng = np.random.default_rng(2)
    by = Requantize(np.full(6, 40, np.int32), np.full(6, 1 << 11, np.int32), 0, 12, 0, 127)
    first = a_product(rng, requantize=by)
    last = Product("l", 2, 3, rng.integers(-1, 2, (10, 54)).astype(np.int8), "ternary", (3, 3), 1, 0, 1, PLAIN)
    program = IntegerProgram((Image(6, 6, 4), Image(6, 6, 6), Image(3, 3, 6), Image(1, 1, 10)), GREY,
                             (first, MaxPool("m", 1, 2, 2, 2), last))  # fmt: skip
    check(program)
    pictures = rng.integers(0, 256, (5, 6, 6, 4)).astype(np.uint8)
    logits = run(program, pictures)
    assert logits.shape == (5, 10)
    assert logits.dtype == np.int32
    assert np.unique(logits).size > 10
    np.testing.assert_array_equal(logits[2:3], run(program, pictures[2:3]))


def test_what_leaves_32_bits_is_found():
    rng = np.random.default_rng(3)
    wide = Requantize(np.full(6, 1 << 20, np.int32), np.zeros(6, np.int32), 0, 12, 0, 127)
    program = IntegerProgram((Image(6, 6, 4), Image(6, 6, 6)), GREY, (a_product(rng, requantize=wide),))
    with pytest.raises(AssertionError, match="leaves 32 bits"):
        check(program)
