"""Networks of pictures with random numbers, of every operation and shape, for the tests of lowering and engine."""

from __future__ import annotations

import numpy as np

from scrimp.models.cnn import Image, Net, Node, Pixels
from scrimp.tensors import encode

GREY = Pixels(128, 0, 1 / 128)

#: Strides, padding, groups, a residual, both pools, odd sides.
RESIDUAL = Net(
    Image(11, 9, 3),
    GREY,
    (
        Node("a", "conv2d", ("input",), outputs=20, kernel=3, padding=1, relu=True),
        Node("b", "conv2d", ("a",), outputs=20, kernel=3, padding=1, groups=20, relu=True),
        Node("c", "conv2d", ("b",), outputs=20, kernel=1),
        Node("s", "add", ("a", "c"), relu=True),
        Node("d", "conv2d", ("s",), outputs=24, kernel=3, stride=2, padding=2, groups=4),
        Node("m", "max_pool", ("d",), kernel=3, stride=1),
        Node("p", "avg_pool", ("m",), kernel=2, stride=2),
        Node("h", "linear", ("p",), outputs=33, relu=True),
        Node("l", "linear", ("h",), outputs=7),
    ),
)
#: A multilayer perceptron on black-and-white pictures.
PLAIN = Net(
    Image(4, 5, 1),
    Pixels(0, 1, 1 / 127),
    (Node("h", "linear", ("input",), outputs=17, relu=True), Node("l", "linear", ("h",), outputs=3)),
)
FORMATS = ("ternary:row", "binary:tensor", "int4:row@f32", "int8:row", "quaternary:row", "iq4nl:row", "int3:tensor")


def tensors_of(net: Net, seed: int = 0, formats: tuple[str, ...] = FORMATS):
    """Random tensors whose activations neither vanish nor all saturate: steps of some standard deviations / 127."""
    rng = np.random.default_rng(seed)
    found, at = {}, 0
    for name, shape in net.tensors().items():
        kind = name.split(".")[1]
        if kind == "weight":
            found[name] = encode((rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32), formats[at])
            at = (at + 1) % len(formats)
        elif kind == "gain":
            found[name] = (rng.uniform(0.5, 1.5, shape) * rng.choice([1, 1, 1, -1], shape)).astype(np.float32)
        elif kind == "bias":
            found[name] = (0.2 * rng.standard_normal(shape)).astype(np.float32)
        else:
            found[name] = np.float32([rng.uniform(0.5, 2) / 127])
    return found


def pictures_for(net: Net, count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    sides = (count, net.image.height, net.image.width, net.image.channels)
    return rng.integers(0, 256, sides).astype(np.uint8)
