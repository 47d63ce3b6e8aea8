"""An IntegerProgram in the compiled core: the same logits as the reference, picture by picture on several threads."""

from __future__ import annotations

from typing import Any

import numpy as np

from scrimp import _core
from scrimp.engine.machine import default_threads, pick_isa
from scrimp.errors import UsageError
from scrimp.integer.program import I32, Add, IntegerProgram, MaxPool, Op, Product, Requantize, check, inputs_of
from scrimp.integer.reference import U8

#: As ``core/integer.h`` numbers them.
_PRODUCT, _MAX_POOL, _AVG_POOL, _ADD = range(4)
_MAX_THREADS = 1024


class IntegerEngine:
    """A program that runs. Calls from several threads wait for each other."""

    def __init__(self, program: IntegerProgram, *, threads: int | None = None, isa: str | None = None) -> None:
        check(program)
        if threads is not None and not 1 <= threads <= _MAX_THREADS:
            raise UsageError(f"{threads:,} threads are out of range.", hint=f"1 … {_MAX_THREADS:,} are possible")
        self.program, self.threads, self.isa = program, threads or default_threads(), pick_isa(isa)
        shapes = [(image.height, image.width, image.channels) for image in program.buffers]
        pixels = program.pixels
        ops = [_tuple(op) for op in program.ops]
        self._core = _core.IntegerEngine(ops, shapes, pixels.zero, pixels.shift, self.threads, self.isa)

    def logits(self, pictures: U8) -> I32:
        """Pictures ``(n, height, width, channels)`` in bytes → logits ``(n, classes)``. UsageError for another shape.

        Logits are integers in one unit, the same for all classes of all pictures.
        """
        image = self.program.buffers[0]
        sides = (image.height, image.width, image.channels)
        if pictures.dtype != np.uint8 or pictures.shape[1:] != sides:
            raise UsageError(
                f"Pictures are {pictures.dtype} of {' × '.join(map(str, pictures.shape[1:]))}; the network sees bytes "
                f"of {' × '.join(map(str, sides))}.",
                hint="height × width × channels must be the same",
            )
        logits = np.empty((len(pictures), self.program.classes), np.int32)
        self._core.run(np.ascontiguousarray(pictures), logits)
        return logits


def _tuple(op: Op) -> tuple[Any, ...]:
    """As ``core/bind_integer.cpp`` takes it."""
    inputs = list(inputs_of(op))
    if isinstance(op, Add):
        multipliers, offset = np.array(op.multipliers, np.int32), np.array([op.offset], np.int32)
        limits = (0, op.shift, op.low, op.high)
        return _ADD, inputs, op.output, None, (1, 1, 1, 0, 1), limits, multipliers, offset
    if isinstance(op, Product):
        window = (*op.kernel, op.stride, op.padding, op.groups)
        return _PRODUCT, inputs, op.output, op.weight, window, *_limits(op.requantize)
    window = (op.kernel, op.kernel, op.stride, 0, 1)
    if isinstance(op, MaxPool):
        return _MAX_POOL, inputs, op.output, None, window, (0, 0, 0, 0), None, None
    return _AVG_POOL, inputs, op.output, None, window, *_limits(op.requantize)


def _limits(by: Requantize) -> tuple[tuple[int, int, int, int], I32, I32]:
    return (by.pre, by.shift, by.low, by.high), by.multiplier, by.offset
