"""The engine beside the reference: the same logits, whatever the operations, shapes, instruction set and threads."""

import threading

import nets
import numpy as np
import pytest

from scrimp import _core
from scrimp.errors import UsageError
from scrimp.integer import reference
from scrimp.integer.engine import IntegerEngine
from scrimp.integer.lower import lower
from scrimp.integer.program import AvgPool, IntegerProgram, MaxPool, Product, Requantize, check, largest_sum
from scrimp.models.cnn import Image, Net, Node, Pixels

ISAS = _core.available_isas()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("net", [nets.RESIDUAL, nets.PLAIN], ids=["residual", "plain"])
def test_lowered_networks_give_the_reference_s_logits(net, seed, isa):
    program = lower(net, nets.tensors_of(net, seed, nets.FORMATS[seed:] + nets.FORMATS[:seed]))
    pictures = nets.pictures_for(net, 37, seed)
    expected = reference.run(program, pictures)
    for threads in (1, 3):
        np.testing.assert_array_equal(IntegerEngine(program, threads=threads, isa=isa).logits(pictures), expected)
    assert np.unique(expected).size > expected.size // 2


def random_program(rng):
    """Up to six operations with random sides, kernels, strides, padding, groups and requantization."""
    image = Image(*(int(rng.integers(1, 14)) for _ in range(2)), int(rng.choice([1, 2, 3, 8, 17, 33])))
    buffers, ops, seen = [image], [], {0}
    for _ in range(int(rng.integers(0, 6))):
        place = int(rng.choice(sorted(seen)))
        op, made = random_op(rng, place, buffers[place], len(buffers))
        buffers.append(made)
        ops.append(op)
        seen.add(op.output)
    place = len(buffers) - 1
    image = buffers[place]
    weight = rng.integers(-128, 128, (int(rng.integers(1, 40)), image.size)).astype(np.int8)
    by = requantize(rng, len(weight), largest_sum(weight), logits=True)
    last = Product("l", place, place + 1, weight, "int8", (image.height, image.width), 1, 0, 1, by)
    return IntegerProgram((*buffers, Image(1, 1, len(weight))), Pixels(128, 0, 1.0), (*ops, last))


def random_op(rng, place, image, output):
    kernel = int(rng.integers(1, min(image.height, image.width, 5) + 1))
    stride = int(rng.integers(1, 4))
    kind = rng.choice(["product", "product", "max", "average"])
    padding = int(rng.integers(0, kernel)) if kind == "product" else 0
    sides = [(side + 2 * padding - kernel) // stride + 1 for side in (image.height, image.width)]
    if kind == "max":
        return MaxPool("m", place, output, kernel, stride), Image(*sides, image.channels)
    if kind == "average":
        by = requantize(rng, 1, kernel**2 * 128)
        return AvgPool("a", place, output, kernel, stride, by), Image(*sides, image.channels)
    groups = int(rng.choice([g for g in (1, image.channels, 2, 3, 4) if image.channels % g == 0]))
    n = groups * int(rng.choice([1, 1, 2, 5, 16, 20])) if groups < 9 else groups * int(rng.choice([1, 1, 2]))
    weight = rng.integers(-128, 128, (n, kernel**2 * image.channels // groups)).astype(np.int8)
    by = requantize(rng, n, largest_sum(weight))
    op = Product("c", place, output, weight, "int8", (kernel, kernel), stride, padding, groups, by)
    return op, Image(*sides, n)


def requantize(rng, n, largest, *, logits=False):
    """Multipliers that use most of 32 bits, of either sign; of all channels alike now and then."""
    n = 1 if rng.random() < 0.2 else n
    pre = int(rng.integers(0, 8))
    most = ((1 << 31) - 1) // 2 // ((largest >> pre) + 1)
    if most == 0:
        pre, most = 12, ((1 << 31) - 1) // 2 // ((largest >> 12) + 1)
    multiplier = rng.integers(-most, most + 1, n).astype(np.int32)
    offset = rng.integers(-(1 << 29), 1 << 29, n).astype(np.int32)
    if logits:
        return Requantize(multiplier, offset, pre, 0, -(1 << 31), (1 << 31) - 1)
    return Requantize(multiplier, offset, pre, int(rng.integers(18, 26)), int(rng.choice([-128, 0])), 127)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("seed", range(60))
def test_random_programs_give_the_reference_s_logits(seed, isa):
    rng = np.random.default_rng(seed)
    program = random_program(rng)
    check(program)
    image = program.buffers[0]
    pictures = rng.integers(0, 256, (5, image.height, image.width, image.channels)).astype(np.uint8)
    engine = IntegerEngine(program, threads=2, isa=isa)
    np.testing.assert_array_equal(engine.logits(pictures), reference.run(program, pictures))


@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_numbers_there_are(isa):
    """All weights and all pixels -128, products of pairs at the edge of int16's multiplication."""
    weight = np.full((17, 3 * 5 * 7), -128, np.int8)
    by = Requantize(np.ones(1, np.int32), np.zeros(1, np.int32), 0, 0, -(1 << 31), (1 << 31) - 1)
    last = Product("l", 0, 1, weight, "int8", (3, 5), 1, 0, 1, by)
    program = IntegerProgram((Image(3, 5, 7), Image(1, 1, 17)), Pixels(128, 0, 1.0), (last,))
    black = np.zeros((2, 3, 5, 7), np.uint8)
    np.testing.assert_array_equal(IntegerEngine(program, threads=1, isa=isa).logits(black), np.full((2, 17), 105 << 14))


def test_a_picture_s_logits_do_not_depend_on_the_others():
    program = lower(nets.RESIDUAL, nets.tensors_of(nets.RESIDUAL))
    pictures = nets.pictures_for(nets.RESIDUAL, 70)
    engine = IntegerEngine(program, threads=2)
    logits = engine.logits(pictures)
    np.testing.assert_array_equal(engine.logits(pictures[::-1])[::-1], logits)
    for count in (0, 1, 2, 69):
        np.testing.assert_array_equal(engine.logits(pictures[:count]), logits[:count])


def test_threads_of_python_may_share_an_engine():
    program = lower(nets.PLAIN, nets.tensors_of(nets.PLAIN))
    pictures, engine = nets.pictures_for(nets.PLAIN, 500), IntegerEngine(program, threads=2)
    expected, found = engine.logits(pictures), {}
    workers = [threading.Thread(target=lambda i=i: found.__setitem__(i, engine.logits(pictures))) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for logits in found.values():
        np.testing.assert_array_equal(logits, expected)
    assert len(found) == 4


@pytest.mark.parametrize(
    "pictures", [np.zeros((2, 4, 5), np.uint8), np.zeros((2, 5, 4, 1), np.uint8), np.zeros((2, 4, 5, 1), np.float32)]
)
def test_pictures_of_another_shape_are_refused(pictures):
    engine = IntegerEngine(lower(nets.PLAIN, nets.tensors_of(nets.PLAIN)), threads=1)
    with pytest.raises(UsageError, match="the network sees bytes of 4 × 5 × 1"):
        engine.logits(pictures)


W, ONE = np.zeros((2, 12), np.int8), np.ones(1, np.int32)
PLAIN_OP = (0, [0], 1, W, (2, 2, 1, 0, 1), (0, 0, 0, 127), ONE, ONE)
SHAPES = [(2, 2, 3), (1, 1, 2)]


def core(ops=(PLAIN_OP,), shapes=SHAPES, zero=128, pixel_shift=0, threads=1):
    return _core.IntegerEngine(list(ops), shapes, zero, pixel_shift, threads, "scalar")


def changed(at, value):
    op = list(PLAIN_OP)
    op[at] = value
    return tuple(op)


@pytest.mark.parametrize(
    "arguments",
    [
        {"ops": ()}, {"shapes": []}, {"shapes": [(2, 2, 3)]}, {"shapes": [(2, 2, 3), (1, 1, 3)]},
        {"shapes": [(0, 2, 3), (1, 1, 2)]}, {"shapes": [(65536, 65536, 1 << 28), (1, 1, 2)]},
        {"shapes": [(2, 2, -3), (1, 1, 2)]}, {"zero": 256}, {"pixel_shift": 8}, {"threads": 0}, {"threads": 5000},
        *({"ops": (changed(at, value),)} for at, value in [
            (0, 4), (0, -1), (0, 3), (0, 1), (1, [1]), (1, [0, 0]), (1, [-1]), (1, [2]), (1, []), (2, 0), (2, 2),
            (2, -1), (3, None), (3, W[:, :11].copy()), (3, W[:1]), (4, (3, 2, 1, 0, 1)), (4, (2, 2, 0, 0, 1)),
            (4, (2, 2, 1, 2, 1)), (4, (2, 2, 1, -1, 1)), (4, (2, 2, 1, 0, 2)), (4, (2, 2, 1, 0, 0)),
            (4, (1 << 40, 1 << 40, 1, 0, 1)), (4, (1, 12, 1, 0, 1)), (5, (32, 0, 0, 127)), (5, (0, 32, 0, 127)),
            (5, (-1, 0, 0, 127)), (5, (0, 0, 1, 0)), (6, np.ones(3, np.int32)), (6, None), (7, np.ones(2, np.int32)),
        ]),
        {"ops": (PLAIN_OP, changed(2, 1))},
        {"ops": (changed(5, (0, 0, -129, 127)), (0, [1], 2, np.zeros((1, 2), np.int8), (1, 1, 1, 0, 1),
                                                 (0, 0, 0, 127), ONE, ONE)), "shapes": [*SHAPES, (1, 1, 1)]},
        {"ops": ((1, [0], 1, None, (1, 1, 1, 0, 1), (0, 0, 0, 0), None, None),), "shapes": [(2, 2, 3), (2, 2, 3)]},
    ],
)  # fmt: skip
def test_programs_that_fit_nothing_are_refused_by_the_core(arguments):
    with pytest.raises((ValueError, TypeError)):
        core(**arguments)


def test_arrays_that_do_not_fit_are_refused_by_the_core():
    engine = core()
    engine.run(np.zeros((3, 2, 2, 3), np.uint8), np.zeros((3, 2), np.int32))
    for pictures, logits in [((3, 2, 3, 2), (3, 2)), ((3, 2, 2, 3), (2, 2)), ((3, 2, 2, 3), (3, 3)), ((3, 12), (3, 2))]:
        with pytest.raises((ValueError, TypeError)):
            engine.run(np.zeros(pictures, np.uint8), np.zeros(logits, np.int32))
    for pictures, logits in [(np.int8, np.int32), (np.uint8, np.int64), (np.uint8, np.float32)]:  # a copy would be lost
        with pytest.raises(TypeError):
            engine.run(np.zeros((3, 2, 2, 3), pictures), np.zeros((3, 2), logits))


def test_sixteen_points_of_depthwise_kernels_run_on_every_instruction_set():
    net = Net(Image(7, 7, 40), nets.GREY, (Node("d", "conv2d", ("input",), outputs=40, kernel=3, padding=2, stride=2,
                                                groups=40), Node("l", "linear", ("d",), outputs=4)))  # fmt: skip
    program, pictures = lower(net, nets.tensors_of(net)), nets.pictures_for(net, 9)
    expected = reference.run(program, pictures)
    for isa in ISAS:
        np.testing.assert_array_equal(IntegerEngine(program, threads=1, isa=isa).logits(pictures), expected)
