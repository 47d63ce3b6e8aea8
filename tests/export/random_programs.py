"""Random IntegerPrograms of every operation, odd sizes included, whose codes neither vanish nor all saturate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrimp.export.firmware.packing import PACKINGS
from scrimp.integer.program import (
    INT32_HIGH,
    INT32_LOW,
    Add,
    AvgPool,
    IntegerProgram,
    MaxPool,
    Product,
    Requantize,
    check,
    largest_sum,
)
from scrimp.models.cnn import Image, Pixels

LEVELS = {"ternary": (-1, 1), "int2": (-2, 1), "int4": (-8, 7), "int8": (-128, 127)}


def weights(rng, element, n, k):
    if element == "binary":
        return (2 * rng.integers(0, 2, (n, k)) - 1).astype(np.int8)
    low, high = LEVELS[element]
    return rng.integers(low, high + 1, (n, k)).astype(np.int8)


def requantize(rng, spread, largest, n, relu):
    """Sums of that ``spread`` to codes of 40 or so; multipliers and offsets with all the bits that fit."""
    channels = n if rng.random() < 0.8 else 1
    pre = int(rng.integers(0, 4)) if largest > 1 << 12 else 0
    factor = 40 / max(spread, 1) * rng.uniform(0.5, 1.5, channels) * (rng.choice([1, 1, 1, 1, -1, 0], channels))
    bias = rng.normal(0, 20, channels)
    for shift in range(24, -1, -1):
        multiplier = np.rint(factor * 2.0 ** (shift + pre))
        offset = np.rint((bias + 0.5) * 2.0**shift)
        most = np.abs(multiplier).max() * ((largest >> pre) + 1) + np.abs(offset).max()
        if most <= INT32_HIGH and np.abs(multiplier).max() <= INT32_HIGH:
            return Requantize(
                multiplier.astype(np.int32), offset.astype(np.int32), pre, shift, 0 if relu else -128, 127
            )
    raise AssertionError("nothing fits")


def logits(rng, largest, n):
    most = min(INT32_HIGH // (2 * (largest + 1)), 1000)
    multiplier = rng.integers(1, most + 1, n if rng.random() < 0.5 else 1)
    return Requantize(
        multiplier.astype(np.int32),
        rng.integers(-(1 << 20), 1 << 20, multiplier.size).astype(np.int32),
        0,
        0,
        INT32_LOW,
        INT32_HIGH,
    )


def product(rng, name, source, made_index, image, n, kernel, stride, padding, groups, last=False, element=None):
    element = element or str(rng.choice(["ternary", "ternary", "binary", "int2", "int4", "int8"]))
    k = kernel[0] * kernel[1] * image.channels // groups
    weight = weights(rng, element, n, k)
    largest = largest_sum(weight)
    spread = 60 * float(np.sqrt((weight.astype(float) ** 2).sum(axis=1).mean()))
    by = logits(rng, largest, n) if last else requantize(rng, spread, largest, n, rng.random() < 0.5)
    return Product(name, source, made_index, weight, element, kernel, stride, padding, groups, by)


def _out(image, kernel, stride, padding):
    return tuple((side + 2 * padding - kernel) // stride + 1 for side in (image.height, image.width))


def a_convolution(rng, images, source, last=False):
    image = images[source]
    kernel = int(rng.integers(1, 4))
    padding = int(rng.integers(0, kernel))
    stride = int(rng.integers(1, 4))
    if min(_out(image, kernel, 1, padding)) < 1:
        kernel, padding = 1, 0
    height, width = _out(image, kernel, stride, padding)
    groups = int(rng.choice([g for g in range(1, image.channels + 1) if image.channels % g == 0]))
    n = groups * int(rng.integers(1, 7))
    if rng.random() < 0.4:
        groups, n = image.channels, image.channels
    op = product(rng, f"c{len(images)}", source, len(images), image, n, (kernel, kernel), stride, padding, groups, last)
    return op, Image(height, width, n)


def a_linear(rng, images, source, last=False):
    image, n = images[source], int(rng.integers(1, 40))
    op = product(rng, f"l{len(images)}", source, len(images), image, n, (image.height, image.width), 1, 0, 1, last)
    return op, Image(1, 1, n)


def a_pool(rng, images, source):
    image = images[source]
    kernel = int(rng.integers(1, min(image.height, image.width) + 1))
    stride = int(rng.integers(1, 4))
    made = Image(*_out(image, kernel, stride, 0), image.channels)
    name = f"p{len(images)}"
    if rng.random() < 0.5:
        return MaxPool(name, source, len(images), kernel, stride), made
    by = requantize(rng, 60 * kernel, kernel * kernel * 128, made.channels, False)
    return AvgPool(name, source, len(images), kernel, stride, by), made


def an_addition(rng, images, source):
    others = [i for i, image in enumerate(images) if image == images[source]]
    pair = (source, int(rng.choice(others)))
    shift = 20
    multipliers = tuple(int(m) for m in rng.integers(-(1 << shift), 1 << shift, 2))
    return Add(f"a{len(images)}", pair, len(images), multipliers, 1 << shift - 1, shift, -128, 127), images[source]


def a_program(seed: int) -> IntegerProgram:
    rng = np.random.default_rng(seed)
    images = [Image(*(int(side) for side in rng.integers(1, 12, 2)), int(rng.integers(1, 7)))]
    ops = []
    for _ in range(int(rng.integers(0, 6))):
        make = (a_convolution, a_convolution, a_pool, a_pool, a_linear, an_addition)[int(rng.integers(0, 6))]
        source = len(images) - 1 if rng.random() < 0.9 else int(rng.integers(0, len(images)))
        op, made = make(rng, images, source)
        ops.append(op)
        images.append(made)
    make = a_linear if rng.random() < 0.7 else a_convolution
    op, made = make(rng, images, len(images) - 1, last=True)
    pixels = (Pixels(128, 0, 1.0), Pixels(0, 1, 1.0), Pixels(3, 3, 1.0))[seed % 3]
    program = IntegerProgram((*images, made), pixels, (*ops, op))
    check(program)
    return program


def pictures_for(program, count, seed=0):
    """Noise, and the two that are all black and all white."""
    image = program.buffers[0]
    found = (
        np.random.default_rng(seed)
        .integers(0, 256, (count, image.height, image.width, image.channels))
        .astype(np.uint8)
    )
    found[0], found[1] = 0, 255
    return found


def random_packings(program, seed):
    """For every product one that holds its weights."""
    rng = np.random.default_rng(seed)
    return {
        op.name: str(rng.choice([name for name, packing in PACKINGS.items() if packing.holds(op.weight)]))
        for op in program.ops
        if isinstance(op, Product)
    }


def a_chain_program(seed: int) -> IntegerProgram:
    """A convolution, then depthwise convolutions and pools, then a linear: what runs a channel at a time."""
    rng = np.random.default_rng(seed)
    images, ops, channels = [Image(13, 11, int(rng.integers(1, 4)))], [], int(rng.integers(2, 9))
    for at, kind in enumerate(("conv", *rng.choice(["depthwise", "pool"], 3))):
        image = images[-1]
        if kind == "pool":
            op, made = a_pool(rng, [Image(min(image.height, 3), min(image.width, 3), 1)], 0)
            made = Image(*_out(image, op.kernel, op.stride, 0), channels)
            op = replace(op, name=f"pool{at}", input=at, output=at + 1)
        else:
            groups, padding = (1, 1) if kind == "conv" else (channels, int(rng.integers(0, 2)))
            kernel = 3 if min(image.height, image.width) >= 3 else 1
            padding = min(padding, kernel - 1)
            made = Image(*_out(image, kernel, 1, padding), channels)
            op = product(rng, f"{kind}{at}", at, at + 1, image, channels, (kernel, kernel), 1, padding, groups)
        ops.append(op)
        images.append(made)
    last, made = a_linear(rng, images, len(images) - 1, last=True)
    program = IntegerProgram((*images, made), Pixels(128, 0, 1.0), (*ops, last))
    check(program)
    return program
