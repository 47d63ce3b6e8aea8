"""What touches a row once: norms, gates, additions, rotations and embedding rows, each a Program of one operation.

Oracles are float64 (or exact) NumPy. u = 2^-24 is the relative error of one float32 rounding, gamma(n) that of n of
them; a result below the normal range may be off by a further 2^-149 for every rounding there.
"""

from dataclasses import replace
from math import erfc

import numpy as np
import pytest

from scrimp import tensors
from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.program import Op, Program
from scrimp.tensors import from_codes, from_floats

UNIT, TINIEST = 2.0**-24, 2.0**-149
WIDTHS = [*range(1, 71), 576, 1536]
FORMATS = (
    ["f32", "f16", "bf16", "int8:tensor@f32", "int4:g64@f32", "int4z:g64@bf16", "int3:g256@bf16", "ternary:row@f32"]
    + [f"int{bits}{z}:{block}" for bits in (2, 3, 4, 5, 6, 8) for z in ("", "z") for block in ("g32", "g128", "row")]
    + [f"{element}:{block}" for element in ("ternary", "binary") for block in ("g32", "g64", "g256", "row", "tensor")]
)


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


def run(build, inputs, isa, *, vectors=None, start=0, context=64, threads=1):
    """One operation on rows ``inputs``; ``build(program, *buffers)`` appends it. Returns its output (T, width)."""
    vectors = vectors or {}
    program = Program({"table": (1, inputs[0].shape[1])}, {name: x.size for name, x in vectors.items()})
    buffers = [program.embed("table") for _ in inputs]  # never run: they only make the buffers
    out = build(program, *buffers).index
    program.output = program.embed("table").index  # nor this
    tables = {name: from_floats(parse("f32"), np.zeros(shape, np.float32)) for name, shape in program.matrices.items()}
    engine = Engine(program, tables, vectors, context=context, threads=threads, isa=isa, chunk=len(inputs[0]))
    given = {buffer.index: x for buffer, x in zip(buffers, inputs, strict=True)}
    tokens = np.zeros(len(inputs[0]), np.int32)
    return engine.run(tokens, start, len(inputs), len(inputs) + 1, inputs=given, outputs=[out])[out]


def rms_norm(x, weight, eps, isa, **options):
    return run(lambda p, b: p.rms_norm(b, "weight", eps), [x], isa, vectors={"weight": weight}, **options)


def swiglu(gate, up, isa, **options):
    return run(lambda p, a, b: p.activation("silu", a, b), [gate, up], isa, **options)


def rope(x, frequencies, heads, isa, **options):
    return run(lambda p, b: p.rope(b, heads, frequencies), [x], isa, **options)


def rows(width, *more, scale=1.0, count=3):
    rng = np.random.default_rng([width, *more])
    return (scale * rng.normal(size=(count, width))).astype(np.float32)


def assert_rms_norm_within_bound(x, weight, eps, isa):
    """The mean is a sum of n squares in float64; its root, x times it, and times the weight are rounded to float32."""
    wide = x.astype(np.float64)
    exact = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + float(np.float32(eps))) * weight.astype(np.float64)
    bound = (gamma(3) + (x.shape[1] + 5) * 2.0**-53) * np.abs(exact) + (np.abs(weight) + 1) * TINIEST
    assert np.all(np.abs(rms_norm(x, weight, eps, isa) - exact) <= bound), f"width {x.shape[1]}, eps {eps}"


def test_rms_norm_is_within_the_bound(isa):
    for width in WIDTHS:
        assert_rms_norm_within_bound(rows(width), rows(width, 1)[0], 1e-5, isa)


@pytest.mark.parametrize("eps", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("size", [1e-18, 1e-4, 1.0, 1e18, 1e36])
def test_rms_norm_survives_tiny_and_huge_rows(size, eps, isa):
    for width in (1, 17, 576):
        assert_rms_norm_within_bound(rows(width, scale=size), rows(width, 1)[0], eps, isa)


def test_rms_norm_of_zeros_is_zero(isa):
    for width in (1, 15, 16, 70):
        assert not rms_norm(np.zeros((2, width), np.float32), rows(width)[0], 1e-6, isa).any()


def test_one_huge_value_does_not_drown_the_norm_of_others(isa):
    """The sum of squares of a row does not overflow and no row sees another."""
    x = rows(70, count=3)
    alone = rms_norm(x, rows(70, 1)[0], 1e-5, isa)
    x[1, 5] = 1e37
    assert_rms_norm_within_bound(x, rows(70, 1)[0], 1e-5, isa)
    assert np.array_equal(rms_norm(x, rows(70, 1)[0], 1e-5, isa)[[0, 2]], alone[[0, 2]])


def assert_swiglu_within_bound(gate, up, isa):
    """exp within 2 ulp <= 4u, then 1 + exp, the quotient and the product: 7 roundings' worth.

    Where exp(-gate) overflows (gate < -88.7) silu is 0; it is smaller than 3e-37 there, so all of it may be lost.
    """
    g, wide = gate.astype(np.float64), up.astype(np.float64)
    with np.errstate(over="ignore"):
        exact = g / (1 + np.exp(-g)) * wide
    bound = np.where(g < -88.7, 1 + gamma(7), gamma(7)) * np.abs(exact) + (np.abs(wide) + 1) * TINIEST
    assert np.all(np.abs(swiglu(gate, up, isa) - exact) <= bound)


def test_swiglu_is_within_the_bound(isa):
    for width in WIDTHS:
        assert_swiglu_within_bound(rows(width, scale=5), rows(width, 1), isa)


def test_swiglu_is_within_the_bound_over_the_whole_range(isa):
    sizes = np.geomspace(1e-40, 1e30, 2000)
    gate = np.concatenate([np.linspace(-110, 110, 40001), sizes, -sizes])[None].astype(np.float32)
    assert_swiglu_within_bound(gate, rows(gate.size, count=1), isa)


def test_extreme_gates_pass_or_close_entirely(isa):
    gate = np.array([[100, 1e4, 1e18, -100, -1e4, -1e18, 0, -0.0]], np.float32)
    up = np.full_like(gate, 3e18)
    got = swiglu(gate, up, isa)
    assert np.array_equal(got[0, :3], (gate * up)[0, :3])
    assert np.array_equal(got[0, 4:], np.zeros(4))
    assert_swiglu_within_bound(gate, up, isa)


def test_addition_is_exactly_rounded(isa):
    for width in WIDTHS:
        a, b = rows(width, scale=100), rows(width, 1)
        assert np.array_equal(run(Program.add, [a, b], isa), a + b)
    huge = np.array([[1e18, -1e18, 3e38, 2.0**-149, 0]], np.float32)
    other = np.array([[1e18, 1e18, -3e38, 2.0**-149, 0]], np.float32)
    assert np.array_equal(run(Program.add, [huge, other], isa), huge + other)


def activation(curve, x, isa, times=None):
    inputs = [x] if times is None else [x, times]
    return run(lambda p, *buffers: p.activation(curve, *buffers), inputs, isa)


def exact_and_roundings(curve, x):
    """In float64, and how many u of itself float32 may be off, as core/kernels/simd/curves.inl says."""
    wide = x.astype(np.float64)
    above = np.maximum(wide, 0)
    if curve == "relu2":
        return above**2, 1, 0
    with np.errstate(over="ignore"):
        if curve == "gelu_tanh":
            z = (2 / np.pi) ** 0.5 * (wide + 0.044715 * wide**3)
            return wide / (1 + np.exp(-2 * z)), 8 + 6 * np.abs(z), 0
    tail = np.abs(wide) * np.vectorize(erfc)(np.abs(wide) / 2**0.5) / 2
    return above - tail, 1, (17 + wide**2) * tail


@pytest.mark.parametrize("curve", ["gelu", "gelu_tanh", "relu2"])
def test_activations_are_within_their_bounds(curve, isa):
    sizes = np.geomspace(1e-30, 1e15, 900)
    whole = np.concatenate([np.linspace(-20, 20, 20001), sizes, -sizes])[None].astype(np.float32)
    for x in (*(rows(width, scale=3) for width in WIDTHS), whole):
        exact, relative, absolute = exact_and_roundings(curve, x)
        bound = UNIT * (relative * np.abs(exact) + absolute) * (1 + 1e-3) + 2.0**-142
        bound = np.where((exact != 0) & (np.abs(exact) < 1e-36), np.abs(exact) + 2.0**-142, bound)  # exp underflows
        assert np.all(np.abs(activation(curve, x, isa) - exact) <= bound), f"width {x.shape[1]}"


@pytest.mark.parametrize("curve", ["silu", "gelu", "gelu_tanh", "relu2"])
def test_a_gate_is_the_activation_times_the_other_input(curve, isa):
    for width in (1, 15, 16, 33, 576):
        x, times = rows(width, scale=3), rows(width, 1)
        product = activation(curve, x, isa) * times
        assert np.all(np.abs(activation(curve, x, isa, times) - product) <= 2 * UNIT * np.abs(product) + TINIEST)


def test_an_activation_of_nan_is_nan(isa):
    for curve in ("silu", "gelu", "gelu_tanh", "relu2"):
        assert np.isnan(activation(curve, np.full((1, 17), np.nan, np.float32), isa)).all()


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_caps_are_within_the_bound_and_never_exceeded(cap, isa):
    x = np.concatenate([np.linspace(-200, 200, 5001), [0.0, 1e-8, -1e30, 1e30, np.inf, -np.inf]])[None]
    x = x.astype(np.float32)
    program = Program({"table": (1, x.shape[1])}, {})
    buffer = program.embed("table")
    program.output = program.embed("table").index  # never run
    program.softcap(buffer, cap)
    table = {"table": from_floats(parse("f32"), np.zeros((1, x.shape[1]), np.float32))}
    engine = Engine(program, table, {}, context=4, threads=1, isa=isa, chunk=1)
    got = engine.run([0], 0, 2, 3, inputs={0: x}, outputs=[0])[0]
    assert np.all(np.abs(got - cap * np.tanh(x.astype(np.float64) / cap)) <= 9 * UNIT * cap)
    assert np.abs(got).max() <= cap


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_of_heads_is_one_of_each_by_itself(offset, isa):
    for width, heads in ((6, 3), (70, 2), (576, 9), (17, 1)):
        x, weight = rows(width), rows(width // heads, 1)[0]
        got = run(lambda p, b, h=heads: p.rms_norm(b, "w", 1e-5, heads=h, offset=offset), [x], isa,
                  vectors={"w": weight})  # fmt: skip
        wide = x.astype(np.float64).reshape(3, heads, -1)
        normal = wide / np.sqrt((wide**2).mean(axis=2, keepdims=True) + float(np.float32(1e-5)))
        exact = (normal * (offset + weight.astype(np.float64))).reshape(x.shape)
        bound = (gamma(4) * np.abs(normal) * np.abs(offset + weight)).reshape(x.shape) + 3 * TINIEST
        assert np.all(np.abs(got - exact) <= bound), f"{heads} heads of {width // heads}"


@pytest.mark.parametrize("middle", [0.0, 1.0, -300.0])
def test_layer_norm_is_within_the_bound(middle, isa):
    """As simd/pointwise.inl derives it: the mean is rounded to float32 before it is subtracted."""
    for width in WIDTHS:
        x, weight, bias = rows(width) + np.float32(middle), rows(width, 1)[0], rows(width, 2)[0]
        got = run(lambda p, b: p.layer_norm(b, "w", "b", 1e-5), [x], isa, vectors={"w": weight, "b": bias})
        wide = x.astype(np.float64)
        mean = wide.mean(axis=1, keepdims=True)
        sd = np.sqrt(((wide - mean) ** 2).mean(axis=1, keepdims=True) + float(np.float32(1e-5)))
        normal = (wide - mean) / sd
        exact = normal * weight.astype(np.float64) + bias
        bound = (gamma(4) * np.abs(normal) + 1.01 * UNIT * np.abs(mean) / sd) * np.abs(weight) + UNIT * np.abs(exact)
        assert np.all(np.abs(got - exact) <= bound + 3 * TINIEST), f"width {width}"


def test_embeddings_look_up_tokens_positions_or_the_first_row(isa):
    values = np.random.default_rng(0).normal(size=(40, 19)).astype(np.float32)
    program = Program({"table": values.shape}, {})
    outs = [program.embed("table", row=row, scale=3.5).index for row in ("token", "position", "first")]
    program.output = program.embed("table").index  # never run
    engine = Engine(program, {"table": from_floats(parse("f32"), values)}, {}, context=40, threads=1, isa=isa)
    tokens = np.array([5, 39, 0, 7], np.int32)
    got = engine.run(tokens, 30, 0, 3, outputs=outs)
    for out, wanted in zip(outs, (tokens, np.arange(30, 34), np.zeros(4, int)), strict=True):
        assert np.array_equal(got[out], values[wanted] * np.float32(3.5))


def test_numbers_that_an_operation_lacks_are_refused():
    """What Python gets wrong must not become a wild read in C++."""
    table = {"table": from_floats(parse("f32"), np.zeros((4, 8), np.float32))}
    vector = {"w": np.ones(8, np.float32)}
    bad = {
        "a vector": lambda p, b: replace(p, ops=[*p.ops, Op("rms_norm", (0,), (0,), (), ("w",), (2,), (0.0, 0.0))]),
        "numbers": lambda p, b: replace(p, ops=[*p.ops, Op("rms_norm", (0,), (0,), (), ("w",))]),
        "activation": lambda p, b: replace(p, ops=[*p.ops, Op("activation", (0,), (0,), ints=(9,))]),
        "positions": lambda p, b: replace(p, ops=[*p.ops, Op("embed", (), (0,), ("table",), ints=(1,), floats=(1.0,))]),
        "cap": lambda p, b: replace(p, ops=[*p.ops, Op("softcap", (0,), (0,), floats=(-1.0,))]),
        "window": lambda p, b: replace(p, ops=[*p.ops, Op("attention", (0, 0, 0), (0,), ints=(0, 1, 1, 8, 3, 0),
                                                          floats=(1.0, 0.0))]),
    }  # fmt: skip
    for word, spoil in bad.items():
        program = Program({"table": (4, 8)}, {"w": 8})
        program.output = program.embed("table").index
        with pytest.raises(ValueError, match=word):
            Engine(spoil(program, None), table, vector, context=64, threads=1, isa="scalar")


def rotated(x, frequencies, heads, start):
    """Float32 angles turned in float64, and the bound: 2u for cos and sin (1 ulp each), a product and a sum."""
    angles = (np.arange(start, start + len(x), dtype=np.float32)[:, None] * np.float32(frequencies)).astype(np.float64)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = np.split(x.astype(np.float64).reshape(len(x), heads, -1), 2, axis=2)
    exact = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=2)
    size = np.concatenate([np.abs(a * cos) + np.abs(b * sin), np.abs(b * cos) + np.abs(a * sin)], axis=2)
    return exact.reshape(x.shape), gamma(4) * size.reshape(x.shape) + 3 * TINIEST


@pytest.mark.parametrize("start", [0, 1, 8000])
def test_rotations_are_within_the_bound(start, isa):
    for width, heads in [(2 * half * h, h) for half in range(1, 36) for h in (1, 3)] + [(576, 9), (1536, 12)]:
        x, frequencies = rows(width), 10000.0 ** -np.linspace(0, 1, width // heads // 2)
        exact, bound = rotated(x, frequencies, heads, start)
        got = rope(x, tuple(frequencies), heads, isa, start=start, context=8192)
        assert np.all(np.abs(got - exact) <= bound), f"{heads} heads of {width // heads} at {start}"


def test_rotations_far_out_and_of_huge_values_are_within_the_bound(isa):
    x, frequencies = rows(24, scale=1e18), (1.0, 0.1, 0.003)
    exact, bound = rotated(x, frequencies, 4, 999_990)
    assert np.all(np.abs(rope(x, frequencies, 4, isa, start=999_990, context=1_000_000) - exact) <= bound)


def test_a_rotation_by_nothing_changes_no_bit(isa):
    for width in (2, 34, 64, 70):
        x = rows(width, scale=1e18)
        assert np.array_equal(rope(x[:1], (1.0,) * (width // 2), 1, isa), x[:1])  # position 0
        assert np.array_equal(rope(x, (0.0,) * (width // 2), 1, isa, start=50), x)  # frequency 0


def test_rotations_keep_the_length_of_every_pair(isa):
    x, frequencies = rows(64, count=40), tuple(10000.0 ** -np.linspace(0, 1, 16))
    before, after = (np.hypot(*np.split(y.astype(np.float64).reshape(40, 2, 32), 2, axis=2))
                     for y in (x, rope(x, frequencies, 2, isa)))  # fmt: skip
    # each member is off by at most gamma(4) (|a cos| + |b sin|) <= gamma(4) |(a, b)|, so the pair by sqrt(2) as much
    assert np.all(np.abs(after - before) <= 2**0.5 * gamma(4) * before)
    assert not np.array_equal(x, rope(x, frequencies, 2, isa))


def test_rotations_and_norms_have_the_same_bits_on_any_number_of_threads(isa):
    x, frequencies = rows(70, count=40), tuple(1.0 / (1 + np.arange(35.0)))
    for operation in (lambda threads: rope(x, frequencies, 1, isa, threads=threads),
                      lambda threads: rms_norm(x, x[0], 1e-5, isa, threads=threads),
                      lambda threads: swiglu(x, x[::-1], isa, threads=threads)):  # fmt: skip
        assert np.array_equal(operation(1), operation(3))


def test_rotations_have_the_same_bits_on_every_instruction_set(isa):
    for width in (2, 34, 70):
        x, frequencies = rows(width), tuple(1.0 / (1 + np.arange(width / 2)))
        assert np.array_equal(rope(x, frequencies, 1, isa), rope(x, frequencies, 1, "scalar"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (40, 341)], ids=str)
def test_embedding_rows_are_the_dequantized_rows_bit_for_bit(name, shape, isa):
    rng = np.random.default_rng([*shape, *name.encode()])
    fmt = parse(name)
    if fmt.scale is None:
        table = from_floats(fmt, tensors.from_f32(rng.normal(size=shape).astype(np.float32), name))
    else:
        size = (1, 1) if fmt.block == "tensor" else (shape[0], fmt.groups(shape[1]))
        scales, mins = (tensors.from_f32(rng.normal(size=size).astype(np.float32), fmt.scale) for _ in range(2))
        codes = rng.integers(0, fmt.element.levels, shape, dtype=np.uint8)
        table = from_codes(fmt, codes, scales, mins if fmt.has_min else None)
    program = Program({"table": shape}, {})
    out = program.embed("table").index
    program.output = program.embed("table").index  # never run
    engine = Engine(program, {"table": table}, {}, context=64, threads=2, isa=isa, chunk=50)
    tokens = rng.integers(0, shape[0], 50).astype(np.int32)
    got = engine.run(tokens, 0, 0, 1, outputs=[out])[out]
    assert np.array_equal(got.view(np.uint32), table.dequantize()[tokens].view(np.uint32))
