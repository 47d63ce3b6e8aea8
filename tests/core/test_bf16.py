"""Products of bf16 weights in bf16, where the processor has them: within the bound, and nowhere else."""

import zlib

import ml_dtypes
import numpy as np
import pytest
from product_oracle import exact_and_bound_in_bf16, to_bf16
from test_linear import assert_together_as_alone, random_tensor

from scrimp import _core, tensors
from scrimp.engine.engine import core_matrix
from scrimp.formats import parse
from scrimp.tensors import from_floats

ISA = "avx512_bf16"


@pytest.fixture(autouse=True)
def _bf16_is_here():
    if ISA not in _core.available_isas():
        pytest.skip(f"this machine cannot run {ISA}")


def bf16(values):
    return from_floats(parse("bf16"), tensors.from_f32(values.astype(np.float32), "bf16"))


@pytest.mark.parametrize("shape", [(1, 4), (16, 64), (33, 172), (48, 342), (70, 576), (130, 1280), (17, 2600)], ids=str)
def test_products_are_within_the_bound(shape):
    rng = np.random.default_rng(zlib.crc32(f"{shape}".encode()))
    tensor = bf16(rng.normal(size=shape))
    for tokens in (1, 2, 3, 12, 13, 29):
        x = rng.normal(size=(tokens, shape[1])).astype(np.float32)
        x[:, : shape[1] // 3] *= 100
        exact, bound = exact_and_bound_in_bf16(tensor, x)
        assert np.all(np.abs(_core.linear(core_matrix(tensor), x, ISA) - exact) <= bound)


def test_a_token_has_the_same_bits_beside_any_number_of_others():
    rng = np.random.default_rng(2)
    matrix = core_matrix(bf16(rng.normal(size=(70, 1536))))
    x = rng.normal(size=(61, 1536)).astype(np.float32)
    alone = np.concatenate([_core.linear(matrix, x[t : t + 1], ISA) for t in range(len(x))])
    for tokens in (2, 3, 5, 11, 12, 13, 24, 25, 61):
        assert np.array_equal(_core.linear(matrix, x[:tokens].copy(), ISA), alone[:tokens]), tokens


def test_activations_are_rounded_to_nearest_even_here_and_nowhere_else():
    """A weight of 1 shows what is multiplied: every step of the eight bits, ties, both signs, and the ends."""
    matrix = core_matrix(bf16(np.array([[1.0, 0.0]])))
    steps = np.arange(1 << 10, dtype=np.uint32)
    x = np.concatenate([(steps << 14 | 0x3F000000).view(np.float32),
                        np.array([3.4e38, 1e-37, 0.0, np.inf], np.float32)])  # fmt: skip
    x = np.stack([np.concatenate([x, -x]), np.zeros(2 * len(x), np.float32)], axis=1)
    y = _core.linear(matrix, x, ISA)[:, 0]
    with np.errstate(over="ignore"):
        rounded = x[:, 0].astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(y, rounded)
    assert np.array_equal(to_bf16(x[:, 0].copy()), rounded)  # the oracle of the others
    for isa, reference in ((ISA, True), *((isa, False) for isa in _core.available_isas() if isa != ISA)):
        assert np.array_equal(_core.linear(matrix, x, isa, float_arithmetic=reference)[:, 0], x[:, 0])


def test_what_is_no_number_stays_none():
    matrix = core_matrix(bf16(np.ones((20, 64))))
    x = np.ones((3, 64), np.float32)
    x[1, 7], x[2, 7] = np.nan, np.uint32(0x7F800001).view(np.float32)  # a quiet one, and one that only low bits tell
    y = _core.linear(matrix, x, ISA)
    assert np.array_equal(np.isnan(y), [[False] * 20, [True] * 20, [True] * 20])


@pytest.mark.parametrize(("shape", "name"), [((17, 35), "bf16"), ((17, 64), "f16"), ((17, 64), "f32")])
def test_others_multiply_in_float32(shape, name):
    """An odd number of inputs has no last pair, whose other half may hold anything."""
    rng = np.random.default_rng(4)
    matrix = core_matrix(random_tensor(name, shape, rng))
    x = rng.normal(size=(5, shape[1])).astype(np.float32)
    assert np.array_equal(_core.linear(matrix, x, ISA), _core.linear(matrix, x, ISA, float_arithmetic=True))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 13, 100])
def test_one_input_serves_products_of_every_kind(tokens, threads):
    rng = np.random.default_rng(11)
    cols, table = 704, from_floats(parse("f32"), rng.normal(size=(tokens, 704)).astype(np.float32))
    names = ["int4:g32", "bf16", "f16", "bf16", "int4z:g32", "bf16", "int4:g32"]
    matrices = {f"{at}": random_tensor(name, (70, cols), rng) for at, name in enumerate(names)}
    assert_together_as_alone(matrices, table, threads, ISA)
