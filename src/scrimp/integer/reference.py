"""An IntegerProgram in NumPy, as slow and as plain as its definition: what everything else is compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scrimp.integer.program import I32, Add, AvgPool, IntegerProgram, MaxPool, Op, Product, Requantize, inputs_of
from scrimp.models.cnn import Pixels

U8 = NDArray[np.uint8]
#: int8, or int32 of logits.
Codes = NDArray[np.signedinteger]


def run(program: IntegerProgram, pictures: U8) -> I32:
    """Pictures ``(n, height, width, channels)`` in bytes → logits ``(n, classes)``."""
    buffers: dict[int, Codes] = {0: from_bytes(pictures, program.pixels)}
    for op in program.ops:
        buffers[op.output] = step(op, [buffers[index] for index in inputs_of(op)])
    return buffers[program.ops[-1].output].reshape(len(pictures), -1).astype(np.int32)


def from_bytes(pictures: U8, pixels: Pixels) -> Codes:
    return ((pictures.astype(np.int32) - pixels.zero) >> pixels.shift).astype(np.int8)


def step(op: Op, inputs: list[Codes]) -> Codes:
    """One operation on ``(n, height, width, channels)``."""
    x = inputs[0]
    if isinstance(op, Add):
        total = sum(m * part.astype(np.int32) for m, part in zip(op.multipliers, inputs, strict=True)) + op.offset
        return np.clip(total >> op.shift, op.low, op.high).astype(np.int8)
    if isinstance(op, Product):
        return requantize(product(op, x), op.requantize)
    seen = windows(x, (op.kernel, op.kernel), op.stride)
    if isinstance(op, MaxPool):
        return np.asarray(seen.max(axis=(3, 4)), x.dtype)
    assert isinstance(op, AvgPool)
    return requantize(seen.sum(axis=(3, 4), dtype=np.int32), op.requantize)


def product(op: Product, x: Codes) -> I32:
    """Sums in int32, before they are requantized: ``(n, height, width, N)``."""
    pad = (op.padding, op.padding)
    seen = windows(np.pad(x, ((0, 0), pad, pad, (0, 0))), op.kernel, op.stride)
    n, height, width = seen.shape[:3]
    parts = []
    for group, weight in zip(np.split(seen, op.groups, axis=5), np.split(op.weight, op.groups), strict=True):
        parts.append(group.reshape(n, height, width, -1).astype(np.int32) @ weight.T.astype(np.int32))
    return np.concatenate(parts, axis=3)


def windows(x: Codes, kernel: tuple[int, int], stride: int) -> Codes:
    """``(n, height, width, channels)`` → ``(n, height', width', rows, columns, channels)``."""
    seen: Codes = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))[:, ::stride, ::stride]
    return seen.transpose(0, 1, 2, 4, 5, 3)


def requantize(sums: I32, by: Requantize) -> Codes:
    codes = np.clip(((sums >> by.pre) * by.multiplier + by.offset) >> by.shift, by.low, by.high)
    return np.asarray(codes, np.int8 if by.high < 1 << 15 else np.int32)
