"""Matrix products of every instruction set against exact arithmetic, within the bound of architecture §5."""

import zlib

import numpy as np
import pytest
from product_oracle import UNIT, bound_of_levels, exact_and_bound, gamma, quantize

from scrimp import _core, tensors
from scrimp.engine import Engine
from scrimp.engine.engine import core_matrix
from scrimp.formats import parse
from scrimp.program import Program
from scrimp.tensors import from_codes, from_floats

INTEGERS = ["int2", "int3", "int4", "int5", "int6", "int8"]
INT8_FORMATS = (
    [f"{e}{z}:{b}" for e in INTEGERS for z in ("", "z") for b in ("g32", "g128", "row")]
    + [f"{e}:{b}" for e in ("ternary", "binary") for b in ("g32", "g64", "g256", "row", "tensor")]
    + ["int4:g64@f32", "int4z:g64@bf16", "int8:tensor@f32", "ternary:row@f32", "int3:g256@bf16"]
)
#: Of 2, 3 and 4 bits, learned ones and others; levels that 8 bits hold and that they don't; every type of scale.
TABLES = ["nf4:g64", "nf4:row", "af4:tensor", "mxfp4", "fp4_e2m1:g128@bf16", "iq4nl:g32", "iq4nl:g256@f32",
          "kmeans4:g64", "kmeans3:g32", "kmeans3:row@e8m0", "kmeans2:g128", "kmeans2:row",
          "fixed3.2:g32@e8m0"]  # fmt: skip
INT8_FORMATS += [*TABLES, "int4:g32@e8m0", "ternary:g64@e8m0"]
SHAPES = [(1, 4), (16, 64), (33, 172), (48, 341), (70, 576), (17, 2600)]


def random_tensor(name, shape, rng):
    fmt = parse(name)
    if fmt.scale is None:
        return from_floats(fmt, tensors.from_f32(rng.normal(size=shape).astype(np.float32), name))
    codes = rng.integers(0, fmt.element.levels, shape, dtype=np.uint8)
    size = (1, 1) if fmt.block == "tensor" else (shape[0], fmt.groups(shape[1]))
    scales, mins = (tensors.from_f32(rng.normal(size=size).astype(np.float32), fmt.scale) for _ in range(2))
    return from_codes(fmt, codes, scales, mins if fmt.has_min else None, learned(fmt, rng))


def learned(fmt, rng):
    if not fmt.element.name.startswith("kmeans"):
        return None
    return {"codebook": np.sort(rng.normal(size=fmt.element.levels)).astype(np.float32)}


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


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_8_bits_is_as_far_from_the_stored_one_as_its_levels_are(name, isa):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    tensor = random_tensor(name, (40, 704), rng)
    for tokens in (1, 7, 60):
        x = rng.normal(size=(tokens, 704)).astype(np.float32)
        q, sx = quantize(x, 32)
        stored = (q * np.repeat(sx.astype(np.float64), 32, axis=1)) @ tensor.dequantize().astype(np.float64).T
        y = _core.linear(core_matrix(tensor), x, isa)
        rounded = exact_and_bound(tensor, x, 32)[1]
        # dequantize() rounds a product to float, too
        size = (
            np.abs(q * np.repeat(sx, 32, axis=1)).astype(np.float64) @ np.abs(tensor.dequantize()).astype(np.float64).T
        )
        assert np.all(np.abs(y - stored) <= bound_of_levels(tensor, x, 32) + rounded + UNIT * size)


def test_scales_that_are_powers_of_two_reach_both_ends(isa):
    rng = np.random.default_rng(3)
    fmt = parse("mxfp4")
    scales = rng.integers(110, 140, (33, 2), dtype=np.uint8)
    scales[:3, 0], scales[3] = (0, 1, 240), (127, 255)
    tensor = from_codes(fmt, rng.integers(0, 16, (33, 64), dtype=np.uint8), scales)
    whole = tensor.dequantize()
    assert np.isnan(whole[3, 32:]).all()
    assert np.array_equal(core_matrix(tensor).decode_rows(0, 33), whole, equal_nan=True)
    for tokens in (1, 13):
        x = rng.normal(size=(tokens, 64)).astype(np.float32)
        exact, bound = exact_and_bound(tensor, x, 32)
        y = _core.linear(core_matrix(tensor), x, isa)
        assert np.isnan(y[:, 3]).all()
        assert np.all(np.isnan(exact) | (np.abs(y - exact) <= bound))
        y = _core.linear(core_matrix(tensor), x, isa, float_arithmetic=True)
        exact, size = x.astype(np.float64) @ whole.astype(np.float64).T, np.abs(x) @ np.abs(whole).T
        assert np.all(np.isnan(exact) | (np.abs(y - exact) <= gamma(65) * size))
        assert np.isnan(y[:, 3]).all()


@pytest.mark.parametrize("cols", [704, 341, 2700])
@pytest.mark.parametrize(
    ("name", "block"),
    [(name, block) for name in ("int4:row", "int8z:row", "ternary:row", "binary:tensor") for block in (64, 128, 4096)]
    + [("int3:g128", 64), ("int3:g128", 128), ("ternary:g256", 256), ("nf4:row", 4096), ("kmeans3:g128", 64)],
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
                 "ternary:g64", "ternary:row", "binary:g32", "nf4:g64", "mxfp4", "kmeans3:row", "kmeans2:g32@bf16",
                 "int4:g64@e8m0"]  # fmt: skip


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
        book = (
            {"codebook": np.linspace(-1, 1, fmt.element.levels).astype(np.float32)}
            if fmt.element.name.startswith("kmeans")
            else None
        )
        tensor = from_codes(fmt, codes, ones, ones if fmt.has_min else None, book)
        x = np.full((13, cols), 1.0, np.float32)
        exact, bound = exact_and_bound(tensor, x, 32)
        for rows in (x[:1], x):
            assert np.all(
                np.abs(_core.linear(core_matrix(tensor), rows, isa) - exact[: len(rows)]) <= bound[: len(rows)]
            ), name


@pytest.mark.parametrize("name", ["int8:g32", "int6:g64", "int5z:g128", "int4z:g32", "int4:g64", "int3:g64", "int2:g32",
                                  "binary:g64", "nf4:g64", "mxfp4", "kmeans3:g32"])  # fmt: skip
@pytest.mark.parametrize("shape", [(16, 64), (33, 576), (70, 1536), (17, 2624)])
def test_a_token_has_the_same_bits_beside_any_number_of_others(name, shape, isa):
    """What lets sequences share a step: one kernel serves a token alone, others a few, or many."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {shape}".encode()))
    matrix = core_matrix(random_tensor(name, shape, rng))
    x = rng.normal(size=(61, shape[1])).astype(np.float32)
    alone = np.concatenate([_core.linear(matrix, x[t : t + 1], isa) for t in range(len(x))])
    for tokens in (2, 3, 4, 5, 6, 7, 11, 12, 13, 18, 24, 25, 47, 48, 49, 61):
        assert np.array_equal(_core.linear(matrix, x[:tokens].copy(), isa), alone[:tokens]), tokens


def assert_together_as_alone(matrices, table, threads, isa):
    """Products of one input have the same bits in one operation as each in its own."""

    def run(*groups):
        program = Program({"table": table.shape, **{name: w.shape for name, w in matrices.items()}}, {})
        x = program.embed("table")
        made = [out.index for group in groups for out in program.linear(x, *group)]
        program.output = made[-1]
        engine = Engine(program, {"table": table, **matrices}, {}, context=128, threads=threads, isa=isa, chunk=128)
        found = engine.run(np.arange(table.shape[0], dtype=np.int32), 0, 0, len(program.ops), outputs=made)
        return [found[index] for index in made]

    for one, other in zip(run(list(matrices)), run(*[[name] for name in matrices]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [13, 100])
def test_products_of_one_input_do_not_spoil_each_other(tokens, threads, isa):
    """A kernel may keep what it found out about the activations for the next weights of the same operation."""
    names = ["int4:g32", "int4z:g32", "int4z:g64", "int3:g32", "ternary:g32", "int2z:g32", "binary:g32", "f16",
             "int8:row", "int4z:g32", "nf4:g32", "int4z:g32"]  # fmt: skip
    rng = np.random.default_rng(11)
    cols, table = 704, from_floats(parse("f32"), rng.normal(size=(tokens, 704)).astype(np.float32))
    matrices = {f"{at}": random_tensor(name, (70, cols), rng) for at, name in enumerate(names)}
    assert_together_as_alone(matrices, table, threads, isa)
