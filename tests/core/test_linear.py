"""Matrix products of every instruction set against exact arithmetic, within the bound of architecture §5.

The exact result is computed in float64 from the stored codes and from int8 activations quantized here, in NumPy, by the
rule of ``core/kernels/kernels.h``: nothing of the kernels is used to check them.
"""

import zlib

import numpy as np
import pytest

from scrimp import _core, tensors
from scrimp.engine.engine import core_matrix
from scrimp.formats import parse
from scrimp.tensors import from_codes, from_floats

UNIT = 2.0**-24
INTEGERS = ["int2", "int3", "int4", "int5", "int6", "int8"]
INT8_FORMATS = (
    [f"{e}{z}:{b}" for e in INTEGERS for z in ("", "z") for b in ("g32", "g128", "row")]
    + [f"{e}:{b}" for e in ("ternary", "binary") for b in ("g32", "g64", "g256", "row", "tensor")]
    + ["int4:g64@f32", "int4z:g64@bf16", "int8:tensor@f32", "ternary:row@f32", "int3:g256@bf16"]
)
SHAPES = [(1, 4), (16, 64), (33, 172), (48, 341), (70, 576), (17, 2600)]


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


def random_tensor(name, shape, rng):
    fmt = parse(name)
    if fmt.scale is None:
        return from_floats(fmt, tensors.from_f32(rng.normal(size=shape).astype(np.float32), name))
    codes = rng.integers(0, fmt.element.levels, shape, dtype=np.uint8)
    size = (1, 1) if fmt.block == "tensor" else (shape[0], fmt.groups(shape[1]))
    scales, mins = (tensors.from_f32(rng.normal(size=size).astype(np.float32), fmt.scale) for _ in range(2))
    return from_codes(fmt, codes, scales, mins if fmt.has_min else None)


def quantize(x, block):
    """int8 codes (T, K) and the float32 scale of every block (T, blocks)."""
    tokens, cols = x.shape
    padded = np.pad(x, ((0, 0), (0, -cols % block))).reshape(tokens, -1, block)
    scales = (np.abs(padded).max(axis=2) / np.float32(127)).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.rint(padded / safe[:, :, None]).astype(np.int64).reshape(tokens, -1)[:, :cols], scales


def exact_and_bound(tensor, x, block):
    """The product of stored weights and quantized activations in float64, and how far float32 may be from it."""
    fmt, (rows, cols) = tensor.format, tensor.shape
    block = min(block, cols)
    q, sx = quantize(x, block)
    group = fmt.group(cols)
    scales = tensor.row_scales().astype(np.float64)
    mins = tensor.row_mins().astype(np.float64) if tensor.mins is not None else None
    codes = tensor.codes().astype(np.int64)
    exact, size = np.zeros((x.shape[0], rows)), np.zeros((x.shape[0], rows))
    pieces = -(-cols // 32)  # kernels may cut a long sum anywhere, but never below 32 inputs
    for at in (slice(32 * i, min(32 * i + 32, cols)) for i in range(pieces)):
        steps = codes[:, at] if mins is not None else fmt.element.step * codes[:, at] - fmt.element.zero
        scale = sx[:, at.start // block, None].astype(np.float64)
        terms = [(q[:, at] @ steps.T) * scale * scales[None, :, at.start // group]]
        if mins is not None:
            terms.append(q[:, at].sum(axis=1, keepdims=True) * scale * mins[None, :, at.start // group])
        for term in terms:
            exact += term
            size += np.abs(term)
    # one rounding to float, two products and the additions: at most 2 terms for every piece
    return exact, gamma(2 * pieces + 4) * size


@pytest.mark.parametrize("name", INT8_FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int8_products_are_within_the_bound(name, shape, isa):
    rng = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    tensor = random_tensor(name, shape, rng)
    matrix = core_matrix(tensor)
    for tokens in (1, 2, 5, 12, 13, 31):
        x = rng.normal(size=(tokens, shape[1])).astype(np.float32)
        x[:, : shape[1] // 3] *= 100  # blocks of different size
        exact, bound = exact_and_bound(tensor, x, 32)
        y = _core.linear(matrix, x, isa)
        assert np.all(np.abs(y - exact) <= bound), (
            f"{tokens} tokens: {np.max(np.abs(y - exact) - bound):.2e} over the bound"
        )


@pytest.mark.parametrize("cols", [704, 341, 2700])
@pytest.mark.parametrize(
    ("name", "block"),
    [(name, block) for name in ("int4:row", "int8z:row", "ternary:row", "binary:tensor") for block in (64, 128, 4096)]
    + [("int3:g128", 64), ("int3:g128", 128), ("ternary:g256", 256)],
)
def test_wider_activation_blocks(name, block, cols, isa):
    rng = np.random.default_rng(5)
    tensor = random_tensor(name, (40, cols), rng)
    for tokens in (1, 7, 24):
        x = rng.normal(size=(tokens, cols)).astype(np.float32)
        exact, bound = exact_and_bound(tensor, x, block)
        y = _core.linear(core_matrix(tensor), x, isa, activation_block=block)
        assert np.all(np.abs(y - exact) <= bound)


FLOAT_FORMATS = ["f32", "f16", "bf16", "int2:g32", "int3z:g64", "int4:g32", "int5z:row", "int6:g128", "int8:tensor",
                 "ternary:g64", "ternary:row", "binary:g32"]  # fmt: skip


@pytest.mark.parametrize("name", FLOAT_FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float_products_are_within_the_bound(name, shape, isa):
    rng = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    tensor = random_tensor(name, shape, rng)
    weights = tensor.dequantize().astype(np.float64)
    for tokens in (1, 3, 12, 29):
        x = rng.normal(size=(tokens, shape[1])).astype(np.float32)
        exact, size = x.astype(np.float64) @ weights.T, np.abs(x).astype(np.float64) @ np.abs(weights).T
        y = _core.linear(core_matrix(tensor), x, isa, float_arithmetic=True)
        assert np.all(np.abs(y - exact) <= gamma(shape[1] + 1) * size)


def test_zeros_and_extreme_activations_survive(isa):
    rng = np.random.default_rng(0)
    tensor = random_tensor("int8:g32", (20, 128), rng)
    x = np.zeros((3, 128), np.float32)
    x[1, :32], x[1, 32:64] = 1e30, 1e-30
    x[2] = 127.0
    exact, bound = exact_and_bound(tensor, x, 32)
    y = _core.linear(core_matrix(tensor), x, isa)
    assert np.array_equal(y[0], np.zeros(20))
    assert np.all(np.abs(y - exact) <= bound)


def test_the_largest_codes_do_not_overflow(isa):
    for name in INT8_FORMATS:
        fmt, cols = parse(name), 256
        codes = np.full((16, cols), fmt.element.levels - 1, np.uint8)
        size = (1, 1) if fmt.block == "tensor" else (16, fmt.groups(cols))
        ones = tensors.from_f32(np.ones(size, np.float32), fmt.scale)
        tensor = from_codes(fmt, codes, ones, ones if fmt.has_min else None)
        x = np.full((13, cols), 1.0, np.float32)
        exact, bound = exact_and_bound(tensor, x, 32)
        for rows in (x[:1], x):
            assert np.all(
                np.abs(_core.linear(core_matrix(tensor), rows, isa) - exact[: len(rows)]) <= bound[: len(rows)]
            ), name


@pytest.mark.parametrize("name", ["int8:g32", "int6:g64", "int5z:g128", "int4z:g32", "int4:g64", "int3:g64", "int2:g32",
                                  "binary:g64"])  # fmt: skip
@pytest.mark.parametrize("shape", [(16, 64), (33, 576), (70, 1536), (17, 2624)])
def test_a_token_has_the_same_bits_beside_any_number_of_others(name, shape, isa):
    """What lets sequences share a step: one kernel serves a token alone, others a few, or many."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode()))
    matrix = core_matrix(random_tensor(name, shape, rng))
    x = rng.normal(size=(61, shape[1])).astype(np.float32)
    alone = np.concatenate([_core.linear(matrix, x[t : t + 1], isa) for t in range(len(x))])
    for tokens in (2, 3, 4, 5, 6, 7, 11, 12, 13, 18, 24, 25, 47, 48, 49, 61):
        assert np.array_equal(_core.linear(matrix, x[:tokens].copy(), isa), alone[:tokens]), tokens
