"""An IntegerProgram: a network of pictures as operations on int8 buffers. Data; NumPy, C++ and printed C walk it alike.

Buffers are ``(height, width, channels)`` in memory. Products are summed in int32; then each output channel n is brought
back to eight bits by::

    code = clamp(((acc >> pre) · multiplier[n] + offset[n]) >> shift, low, high)

``>>`` rounds towards −∞; half of ``2^shift`` is in the offset already. Every number on the way fits into 32 bits with a
sign, whatever the picture: :func:`check` proves it from the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.models.cnn import Image, Pixels

I8 = NDArray[np.int8]
I32 = NDArray[np.int32]

#: Where int8 activations lie, and what logits may be.
LOW, HIGH = -128, 127
INT32_LOW, INT32_HIGH = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Requantize:
    """Sums in int32 → codes; of logits ``low`` and ``high`` are those of int32, and nothing is clamped."""

    multiplier: I32  #: per output channel (N,), or (1,) for all alike
    offset: I32  #: of the same shape
    pre: int  #: bits dropped before the multiplication, so that it fits
    shift: int
    low: int
    high: int


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """conv2d, and linear as the convolution whose kernel is the whole picture. Padding is 0 on all four sides."""

    name: str
    input: int
    output: int
    weight: I8  #: (N, K): K in the order (row, column, channel of the group)
    element: str  #: what the numbers can be: "ternary", "binary", "int2" … "int8"
    kernel: tuple[int, int]
    stride: int
    padding: int
    groups: int
    requantize: Requantize


@dataclass(frozen=True, slots=True)
class MaxPool:
    name: str
    input: int
    output: int
    kernel: int
    stride: int


@dataclass(frozen=True, slots=True, eq=False)
class AvgPool:
    """Sums of the kernel, requantized: the division is in the multiplier, one for all channels."""

    name: str
    input: int
    output: int
    kernel: int
    stride: int
    requantize: Requantize


@dataclass(frozen=True, slots=True, eq=False)
class Add:
    """``clamp((a · multipliers[0] + b · multipliers[1] + offset) >> shift, low, high)``."""

    name: str
    inputs: tuple[int, int]
    output: int
    multipliers: tuple[int, int]
    offset: int
    shift: int
    low: int
    high: int


Op = Product | MaxPool | AvgPool | Add


@dataclass(frozen=True, slots=True, eq=False)
class IntegerProgram:
    """``buffers[0]`` is the picture in int8, the output of the last operation holds the logits in int32."""

    buffers: tuple[Image, ...]
    pixels: Pixels
    ops: tuple[Op, ...]

    @property
    def classes(self) -> int:
        return self.buffers[self.ops[-1].output].size


def inputs_of(op: Op) -> tuple[int, ...]:
    return op.inputs if isinstance(op, Add) else (op.input,)


def largest_sum(weight: I8) -> int:
    """The most that ``|Σ w x|`` of any row can be, x in int8."""
    return int(np.abs(weight.astype(np.int64)).sum(axis=1).max(initial=0)) * -LOW


def check(program: IntegerProgram) -> None:
    """Assert that no picture can make any number leave 32 bits, and that shapes fit together."""
    for op in program.ops:
        image = program.buffers[inputs_of(op)[0]]
        if isinstance(op, Add):
            assert 0 <= op.shift < 32, op.name
            assert sum(abs(m) for m in op.multipliers) * -LOW + abs(op.offset) <= INT32_HIGH, op.name
        elif isinstance(op, Product):
            rows, columns = op.kernel
            assert op.weight.shape[1] == rows * columns * image.channels // op.groups, op.name
            _check(op.requantize, largest_sum(op.weight), op.name)
        elif isinstance(op, AvgPool):
            _check(op.requantize, op.kernel**2 * -LOW, op.name)


def _check(by: Requantize, largest: int, name: str) -> None:
    """Of sums that are no larger than ``largest``."""
    assert largest <= INT32_HIGH, f"{name}: sums leave 32 bits"
    assert 0 <= by.shift < 32, name
    assert 0 <= by.pre < 32, name
    multiplier, offset = by.multiplier.astype(np.int64), by.offset.astype(np.int64)
    most = np.abs(multiplier) * ((largest >> by.pre) + 1) + np.abs(offset)
    assert int(most.max()) <= INT32_HIGH, f"{name}: what is multiplied leaves 32 bits"
