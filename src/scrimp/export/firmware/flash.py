"""Bytes in flash of what belongs to an operation beside its weights: structures, multipliers and offsets, its call."""

from __future__ import annotations

import numpy as np

from scrimp.export.firmware.narrow import I64, narrow, rows_reach, stored_bytes
from scrimp.export.firmware.schedule import Stage, is_linear
from scrimp.integer.program import Add, AvgPool, IntegerProgram, Op, Product, Requantize

#: sizeof, on 32 bits: struct scrimp_linear, scrimp_conv, scrimp_pool, scrimp_add, scrimp_requantize.
LINEAR, CONV, POOL, ADD, REQUANTIZE = 48, 80, 16, 16, 24
#: The code of model_run: itself, and a call with its arguments at most; a loop over channels.
RUN, CALL, LOOP = 28, 24, 24


def reach_of(program: IntegerProgram, op: Product | AvgPool) -> I64:
    """No ``|sum >> pre|`` of a channel is larger."""
    if isinstance(op, Product):
        return rows_reach(op.weight, op.requantize.pre)
    return np.full(program.buffers[op.output].channels, (op.kernel**2 * 128 >> op.requantize.pre) + 1, np.int64)


def operation_bytes(program: IntegerProgram, op: Op) -> int:
    if isinstance(op, Product):
        own = LINEAR if is_linear(program, op) else CONV
        return own + _numbers(op.requantize, reach_of(program, op))
    if isinstance(op, Add):
        return ADD
    if isinstance(op, AvgPool):
        return POOL + REQUANTIZE + _numbers(op.requantize, reach_of(program, op))
    return POOL


def _numbers(by: Requantize, reach: I64) -> int:
    return sum(-(-stored_bytes(values) // 4) * 4 for values in (by.multiplier, narrow(by, reach).stored))


def call_bytes(program: IntegerProgram, stages: tuple[Stage, ...]) -> int:
    return RUN + CALL * len(program.ops) + LOOP * sum(stage.chained for stage in stages)
