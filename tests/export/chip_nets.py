"""The networks that run on simulated chips: made ones, whose numbers are the same every time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from random_programs import product, requantize

from scrimp.integer.program import Add, AvgPool, IntegerProgram, MaxPool, Requantize, check
from scrimp.models.cnn import Image, Pixels

BLACK = Pixels(0, 1, 1 / 127)


def _per_channel(rng, n) -> Requantize:
    """Multipliers of 16 bits and offsets with all bits that fit, of every channel its own."""
    multiplier, offset = rng.integers(1 << 14, 1 << 16, n), rng.integers(-(1 << 27), 1 << 27, n)
    return Requantize(multiplier.astype(np.int32), offset.astype(np.int32), 0, 20, 0, 127)


def mlp() -> IntegerProgram:
    """64,608 ternary weights: what 16 KB of flash and 2 KB of RAM must hold."""
    rng = np.random.default_rng(5)
    sizes = (256, 128, 128, 112, 10)
    images = [Image(16, 16, 1), *(Image(1, 1, n) for n in sizes[1:])]
    ops = []
    for i, (image, made) in enumerate(pairwise(images)):
        kernel = (image.height, image.width)
        op = product(rng, f"fc{i}", i, i + 1, image, made.channels, kernel, 1, 0, 1, i == 3, "ternary")
        ops.append(op if i == 3 else replace(op, requantize=_per_channel(rng, made.channels)))
    return IntegerProgram(tuple(images), BLACK, tuple(ops))


def ternary_convolutions() -> IntegerProgram:
    """64 to 64 channels, 3 × 3, padded, on 8 × 8 points, twice; the second with binary weights."""
    rng = np.random.default_rng(6)
    image = Image(8, 8, 64)
    first = product(rng, "ternary", 0, 1, image, 64, (3, 3), 1, 1, 1, element="ternary")
    second = product(rng, "binary", 1, 2, image, 64, (3, 3), 1, 1, 1, element="binary")
    pool = AvgPool("pool", 2, 3, 8, 8, requantize(rng, 60 * 8, 64 * 128, 64, False))
    last = product(rng, "logits", 3, 4, Image(1, 1, 64), 10, (1, 1), 1, 0, 1, True, "int8")
    images = (image, image, image, Image(1, 1, 64), Image(1, 1, 10))
    return IntegerProgram(images, Pixels(128, 0, 1 / 128), (first, second, pool, last))


def residual() -> IntegerProgram:
    """Every operation, odd sides, groups, strides, weights of every width."""
    rng = np.random.default_rng(7)
    images = [
        Image(11, 9, 3),
        Image(11, 9, 20),
        Image(11, 9, 20),
        Image(11, 9, 20),
        Image(11, 9, 20),
        Image(7, 6, 24),
        Image(5, 4, 24),
        Image(2, 2, 24),
        Image(1, 1, 33),
        Image(1, 1, 7),
    ]
    a = product(rng, "a", 0, 1, images[0], 20, (3, 3), 1, 1, 1, element="int8")
    b = product(rng, "b", 1, 2, images[1], 20, (3, 3), 1, 1, 20, element="int4")
    c = product(rng, "c", 2, 3, images[2], 20, (1, 1), 1, 0, 1, element="ternary")
    d = product(rng, "d", 4, 5, images[4], 24, (3, 3), 2, 2, 4, element="int2")
    h = product(rng, "h", 7, 8, images[7], 33, (2, 2), 1, 0, 1, element="binary")
    last = product(rng, "l", 8, 9, images[8], 7, (1, 1), 1, 0, 1, True, "int4")
    ops = (
        a,
        b,
        c,
        Add("s", (1, 3), 4, (700_000, 600_000), 1 << 19, 20, 0, 127),
        d,
        MaxPool("m", 5, 6, 3, 1),
        AvgPool("p", 6, 7, 2, 2, requantize(rng, 120, 4 * 128, 24, False)),
        h,
        last,
    )
    return IntegerProgram(tuple(images), Pixels(128, 0, 1 / 128), ops)


def depthwise() -> IntegerProgram:
    """Whose activations of 14 × 14 × 32 numbers don't fit into 2 KB, but one channel of each does."""
    rng = np.random.default_rng(8)
    images = [
        Image(16, 16, 1),
        Image(14, 14, 32),
        Image(12, 12, 32),
        Image(6, 6, 32),
        Image(4, 4, 32),
        Image(2, 2, 32),
        Image(1, 1, 32),
        Image(1, 1, 10),
    ]
    first = product(rng, "first", 0, 1, images[0], 32, (3, 3), 1, 0, 1, element="int4")
    second = product(rng, "second", 1, 2, images[1], 32, (3, 3), 1, 0, 32, element="int4")
    third = product(rng, "third", 3, 4, images[3], 32, (3, 3), 1, 0, 32, element="ternary")
    linear = product(rng, "linear", 5, 6, images[5], 32, (2, 2), 1, 0, 1, element="ternary")
    last = product(rng, "last", 6, 7, images[6], 10, (1, 1), 1, 0, 1, True, "int4")
    ops = (first, second, MaxPool("m1", 2, 3, 2, 2), third, MaxPool("m2", 4, 5, 2, 2), linear, last)
    return IntegerProgram(tuple(images), BLACK, ops)


#: name → (network, flash, RAM, pictures).
NETS = {
    "mlp": (mlp, 16 << 10, 2 << 10, 40),
    "ternary_convolutions": (ternary_convolutions, None, None, 2),
    "residual": (residual, None, None, 20),
    "depthwise": (depthwise, 16 << 10, 2 << 10, 10),
}


def made(name: str) -> IntegerProgram:
    program = NETS[name][0]()
    check(program)
    return program
