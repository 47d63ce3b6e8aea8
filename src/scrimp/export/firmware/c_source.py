"""An IntegerProgram as ``model.c`` and ``model.h``: constants, and one call of the runtime for each operation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scrimp.export.firmware.arena import Arena
from scrimp.export.firmware.c_arrays import array, fields, numbers
from scrimp.export.firmware.flash import reach_of
from scrimp.export.firmware.memory import gathers, sums_are_logits
from scrimp.export.firmware.narrow import I64, narrow, width
from scrimp.export.firmware.packing import PACKINGS, Words
from scrimp.export.firmware.schedule import Stage, is_linear
from scrimp.integer.program import INT32_HIGH, Add, AvgPool, IntegerProgram, MaxPool, Op, Product, Requantize

HEADER = """\
/* Written by scrimp. A picture of %(picture)s bytes in, %(logits)s logits out. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>

#define MODEL_PICTURE %(picture)s /* bytes: %(shape)s */
#define MODEL_LOGITS %(logits)s
#define MODEL_ARENA %(arena)s /* bytes of RAM, the picture included */

extern int32_t model_arena[MODEL_ARENA / 4];

/* Where the picture goes. It is used up by a run. */
#define model_picture ((uint8_t *)model_arena + %(place)s)

/* The logits of the picture; they stay until the next picture is written. */
const int32_t *model_run(void);

#endif
"""


_PLACES = (
    "#define AT(offset) ((int8_t *)model_arena + (offset))",
    "#define SUMS(offset) ((int32_t *)(void *)AT(offset))",
    "#define TABLES(offset) ((int16_t *)(void *)AT(offset))",
)


@dataclass(frozen=True, slots=True)
class _Names:
    """What C calls things: names of operations come from strangers."""

    of: Mapping[str, str]

    @staticmethod
    def for_program(program: IntegerProgram) -> _Names:
        plain = (re.sub(r"[^A-Za-z0-9]+", "_", op.name)[:40] for op in program.ops)
        return _Names({op.name: f"op{i}_{name}" for i, (op, name) in enumerate(zip(program.ops, plain, strict=True))})


def header(program: IntegerProgram, arena: Arena) -> str:
    image = program.buffers[0]
    return HEADER % {
        "picture": image.size,
        "place": arena.offsets["buffer.0"],
        "logits": program.classes,
        "arena": arena.size,
        "shape": f"{image.height} rows x {image.width} columns x {image.channels} channels",
    }


def source(program: IntegerProgram, stages: Sequence[Stage], packings: Mapping[str, str], arena: Arena) -> str:
    """Deterministic: the same program and plan give the same bytes."""
    names = _Names.for_program(program)
    constants, calls = list[str](), list[str]()
    for stage in stages:
        constants += [_constants(program, op, names.of[op.name], packings, stage.chained, arena) for op in stage.ops]
        calls.append(
            _chain(program, stage, names, arena) if stage.chained else _call(program, stage.ops[0], names, arena)
        )
    image, pixels = program.buffers[0], program.pixels
    logits = arena.offsets[f"buffer.{program.ops[-1].output}"]
    return "\n".join(
        [
            "/* Written by scrimp. */",
            '#include "model.h"',
            '#include "scrimp.h"',
            "",
            "int32_t model_arena[MODEL_ARENA / 4];",
            "",
            *_PLACES,
            "",
            *constants,
            "const int32_t *model_run(void)",
            "{",
            f"    scrimp_pixels(model_picture, {image.size}, {pixels.zero}, {pixels.shift});",
            *calls,
            f"    return SUMS({logits});",
            "}",
            "",
        ]
    )


def packed(op: Product, packing: str, chained: bool) -> tuple[Words, int]:
    """The words of all groups, and the bytes of one; of a chain a row is a group."""
    parts = len(op.weight) if chained else op.groups
    words = [PACKINGS[packing].pack(part) for part in np.split(op.weight, parts)]
    return np.concatenate(words), words[0].nbytes


def _constants(
    program: IntegerProgram, op: Op, name: str, packings: Mapping[str, str], chained: bool, arena: Arena
) -> str:
    if isinstance(op, Product):
        return _product(program, op, name, packings[op.name], chained, arena)
    if isinstance(op, Add):
        values = (*op.multipliers, op.offset, op.shift, op.low, op.high)
        return f"static const struct scrimp_add {name} = {{{fields(values)}}};\n"
    image, made = program.buffers[op.input], program.buffers[op.output]
    shape = (image.height, image.width, 1 if chained else image.channels, made.height, made.width, op.kernel, op.stride)
    pool = f"static const struct scrimp_pool {name} = {{{fields(shape)}}};\n"
    if isinstance(op, MaxPool):
        return pool
    arrays, by = _requantize(op.requantize, reach_of(program, op), name)
    return f"{arrays}static const struct scrimp_requantize {name}_requantize = {by};\n{pool}"


def _requantize(by: Requantize, reach: I64, name: str) -> tuple[str, str]:
    """The arrays of a ``struct scrimp_requantize``, and its initializer."""
    narrowed = narrow(by, reach)
    logits = by.high == INT32_HIGH
    multipliers, multiplier, top = numbers(f"{name}_multiplier", by.multiplier)
    offsets, offset, high = numbers(f"{name}_offset", narrowed.stored)
    bounds = (0, 0) if logits else (by.low, by.high)
    values = (
        multiplier,
        offset,
        top,
        high,
        width(by.multiplier),
        width(narrowed.stored),
        narrowed.shift,
        by.pre,
        by.shift,
        *bounds,
        int(logits),
    )
    return multipliers + offsets, f"{{{fields(values)}}}"


def _product(program: IntegerProgram, op: Product, name: str, packing: str, chained: bool, arena: Arena) -> str:
    words, part_bytes = packed(op, packing, chained)
    arrays, by = _requantize(op.requantize, reach_of(program, op), name)
    acc = f"buffer.{op.output}" if sums_are_logits(program, op) else f"acc.{op.name}"
    tables = f"TABLES({arena.offsets[f'tables.{op.name}']})" if PACKINGS[packing].tables else "0"
    outputs = 1 if chained else len(op.weight) // op.groups
    linear = (
        f"{{{name}_weight, scrimp_{packing.lower()}, SUMS({arena.offsets[acc]}), {tables},\n    {by},\n    "
        f"{op.weight.shape[1]}, {outputs}}}"
    )
    if is_linear(program, op):
        return f"{array(f'{name}_weight', words)}{arrays}static const struct scrimp_linear {name} = {linear};\n"
    image, made = program.buffers[op.input], program.buffers[op.output]
    patch = f"AT({arena.offsets[f'patch.{op.name}']})" if gathers(program, op, chained) else "0"
    shape = (
        patch,
        part_bytes,
        image.height,
        image.width,
        image.channels,
        made.height,
        made.width,
        made.channels,
        *op.kernel,
        op.stride,
        op.padding,
        image.channels // op.groups,
        op.kernel[1] * image.channels // op.groups,
    )
    return (
        f"{array(f'{name}_weight', words)}{arrays}"
        f"static const struct scrimp_conv {name} = {{\n    {linear},\n    {fields(shape)}}};\n"
    )


def _call(program: IntegerProgram, op: Op, names: _Names, arena: Arena) -> str:
    name, out = names.of[op.name], f"AT({arena.offsets[f'buffer.{op.output}']})"
    if isinstance(op, Add):
        a, b = (f"AT({arena.offsets[f'buffer.{index}']})" for index in op.inputs)
        return f"    scrimp_add(&{name}, {a}, {b}, {out}, {program.buffers[op.output].size});"
    into = f"AT({arena.offsets[f'buffer.{op.input}']})"
    channels = program.buffers[op.output].channels
    if isinstance(op, MaxPool):
        return f"    scrimp_max_pool(&{name}, {into}, {out}, {channels});"
    if isinstance(op, AvgPool):
        return f"    scrimp_avg_pool(&{name}, &{name}_requantize, {into}, {out}, {channels}, 0);"
    function = "scrimp_linear" if is_linear(program, op) else "scrimp_conv"
    return f"    {function}(&{name}, {into}, {out});"


def _chain(program: IntegerProgram, stage: Stage, names: _Names, arena: Arena) -> str:
    """All operations of one channel, then of the next."""
    channels = program.buffers[stage.output].channels
    lines = [f"    for (int32_t c = 0; c < {channels}; c++) {{"]
    into = f"AT({arena.offsets[f'buffer.{stage.input[0]}']})"
    for op in stage.ops:
        name, last = names.of[op.name], op is stage.ops[-1]
        place = f"buffer.{op.output}" if last else f"channel.{op.name}"
        out = f"AT({arena.offsets[place]})" + (" + c" if last else "")
        step = channels if last else 1
        if isinstance(op, MaxPool):
            lines.append(f"        scrimp_max_pool(&{name}, {into}, {out}, {step});")
        elif isinstance(op, AvgPool):
            lines.append(f"        scrimp_avg_pool(&{name}, &{name}_requantize, {into}, {out}, {step}, c);")
        else:
            whole = int(op is stage.ops[0])
            lines.append(f"        scrimp_conv_channel(&{name}, {into}, {out}, {step}, c, {whole});")
        into = out
    return "\n".join([*lines, "    }"])
