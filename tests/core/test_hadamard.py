"""The engine's rotation and selection of channels, each a Program of one operation, against float64 NumPy."""

import numpy as np
import pytest

from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.models.hadamard import hartley, odd_factor, rotate, table
from scrimp.program import Op, Program
from scrimp.tensors import from_floats

UNIT = 2.0**-24
WIDTHS = [1, 2, 3, 4, 5, 6, 8, 12, 15, 16, 17, 40, 64, 70, 96, 100, 192, 256, 576, 1536, 2560, 6912]


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


def rows(width, count=3, seed=0):
    return np.random.default_rng([width, seed]).normal(size=(count, width)).astype(np.float32)


def run(op_of, x, isa, *, outputs, vectors=None, threads=1):
    """One operation that reads ``x``; ``outputs`` are the widths of what it makes."""
    vectors = vectors or {}
    program = Program({"table": (1, x.shape[1])}, {name: v.size for name, v in vectors.items()})
    start = program.embed("table").index  # never run: it only makes the buffer
    made = tuple(range(1, 1 + len(outputs)))
    program.widths.extend(outputs)
    program.ops.append(op_of(start, made))
    program.output = program.embed("table").index  # nor this
    tables = {"table": from_floats(parse("f32"), np.zeros((1, x.shape[1]), np.float32))}
    engine = Engine(program, tables, vectors, context=64, threads=threads, isa=isa, chunk=len(x))
    return engine.run(np.zeros(len(x), np.int32), 0, 1, 2, inputs={start: x}, outputs=list(made)), made


def rotated(x, isa, *, inverse=False, stretches=1, bias=None, threads=1):
    width, floats = x.shape[1], table(x.shape[1] // stretches, 1)
    names, vectors = ((), None) if bias is None else (("bias",), {"bias": bias})
    found, (out,) = run(
        lambda start, made: Op("hadamard", (start,), made, (), names, (int(inverse), stretches), floats),
        x, isa, outputs=[width], vectors=vectors, threads=threads,
    )  # fmt: skip
    return found[out]


def bound(x, stretches, inverse):
    """Every output is a sum of ``m·p`` terms with factors of three roundings each, added in m + log2 p steps."""
    width = x.shape[1] // stretches
    m = odd_factor(width)
    p = width // m
    at = np.outer(np.arange(m), np.arange(m)) % m
    size = np.abs(x.astype(np.float64)).reshape(-1, m, p).sum(axis=2)
    each = size @ np.abs(hartley(m)[at]) / np.sqrt(p)
    spread = np.repeat(each, p, axis=1).reshape(len(x), -1)
    return gamma(m + int(np.log2(p)) + 4) * spread


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("stretches", [1, 3])
def test_rotations_are_within_the_bound(inverse, stretches, isa):
    for width in WIDTHS:
        x = rows(width * stretches)
        exact = rotate(x, 1, stretches=stretches, inverse=inverse)
        got = rotated(x, isa, inverse=inverse, stretches=stretches)
        assert np.all(np.abs(got - exact) <= bound(x, stretches, inverse)), f"width {width}"


def test_a_bias_is_added_after_the_rotation(isa):
    x, bias = rows(96), rows(96, count=1, seed=1)[0]
    plain = rotated(x, isa, inverse=True)
    assert np.array_equal(rotated(x, isa, inverse=True, bias=bias), plain + bias)


def test_rotations_have_the_same_bits_on_every_instruction_set_and_any_number_of_threads(isa):
    x = rows(576, count=40)
    assert np.array_equal(rotated(x, isa), rotated(x, "scalar", threads=3))


def test_a_selection_moves_channels_bit_for_bit(isa):
    x, channels = rows(70), (0, 3, 4, 68, 69)
    found, (rest, picked) = run(
        lambda start, made: Op("select", (start,), made, ints=channels), x, isa, outputs=[70, len(channels)]
    )
    assert np.array_equal(found[picked], x[:, channels])
    zeroed = x.copy()
    zeroed[:, channels] = 0
    assert np.array_equal(found[rest], zeroed)


@pytest.mark.parametrize(
    ("op", "says"),
    [
        (lambda s, m: Op("hadamard", (s,), m, ints=(0, 1), floats=(1.0,) * 70), "signs and its mix"),
        (lambda s, m: Op("hadamard", (s,), m, ints=(0, 3), floats=table(70, 1)), "cuts its width"),
        (lambda s, m: Op("hadamard", (s,), m, ints=(0, 0), floats=table(70, 1)), "cuts its width"),
        (lambda s, m: Op("select", (s,), (*m, m[0]), ints=(0,)), "every channel that is picked"),
        (lambda s, m: Op("select", (s,), (*m, m[0]), ints=(70, *range(69))), "out of range"),
        (lambda s, m: Op("select", (s,), (*m, m[0]), ints=(-1, *range(69))), "out of range"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_the_core(op, says):
    with pytest.raises(ValueError, match=says):
        run(op, rows(70), "scalar", outputs=[70])
