"""What a network costs on a chip before it is compiled: instructions and bytes, from counts measured under QEMU.

``costs.toml`` is written by ``tools/firmware_costs.py``: coefficients of the features below, fitted to counted
instructions, and bytes of each function as the compiler made it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import ceil

from scrimp.errors import ScrimpError
from scrimp.export.firmware.memory import gathers
from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.schedule import Stage, is_linear
from scrimp.integer.program import Add, AvgPool, IntegerProgram, MaxPool, Op, Product

#: Functions that a packing needs; those the compiler put into others are of no size.
FUNCTIONS = {
    "W8": ("scrimp_w8", "four_rows", "one_row", "quarter_squares"),
    "W4": ("scrimp_w4", "__mulsi3", "rest", "sum", "store", "split"),
    "T2": ("scrimp_t2", "__mulsi3", "rest", "sum", "store", "split"),
    "T5": ("scrimp_t5", "scrimp_nines", "scrimp_trits", "scrimp_clear"),
    "T19": ("scrimp_t19", "scrimp_nines", "scrimp_trits", "scrimp_clear", "tables_of"),
    "B1": ("scrimp_b1", "plane", "quad"),
    "P2": ("scrimp_p2", "planes", "plane", "quad", "scrimp_clear"),
    "P4": ("scrimp_p4", "planes", "plane", "quad", "scrimp_clear"),
    "P8": ("scrimp_p8", "planes", "plane", "quad", "scrimp_clear"),
}
#: … and what every program has.
BASE = (
    "rest",
    "vectors",
    "start",
    "fault",
    "main",
    "io_print",
    "io_exit",
    "call",
    "memcpy",
    "memset",
    "scrimp_pixels",
    "scrimp_requantize",
)
Features = tuple[float, ...]


def product_features(packing: str, n: int, k: int) -> Features:
    """Of one call of a kernel: what its instructions are linear in."""
    if packing == "W8":
        return 1, n // 4, n // 4 * k, n % 4, n % 4 * k
    if packing in ("W4", "T2"):
        pairs = ceil(n / 2)
        return 1, k, pairs, pairs * ceil(k / PACKINGS[packing].group)
    groups = ceil(k / PACKINGS[packing].group)
    return 1, n, groups, groups * n


def other_features(program: IntegerProgram, op: Op, chained: bool) -> tuple[str, Features]:
    """Of all of an operation but its kernel: the name of its coefficients, and what they are of."""
    made = program.buffers[op.output]
    if isinstance(op, Product):
        if is_linear(program, op):
            return "linear", (1, made.channels)
        pixels = made.height * made.width * (made.channels if chained else op.groups)
        rows = op.kernel[0] if gathers(program, op, chained) else 0
        taps = rows * op.kernel[1]
        inputs = op.weight.shape[1] if taps else 0
        return "conv", (pixels, pixels * rows, pixels * taps, pixels * inputs, made.size)
    if isinstance(op, Add):
        return "add", (1, made.size)
    return ("max_pool" if isinstance(op, MaxPool) else "avg_pool"), (
        made.size,
        made.size * op.kernel,
        made.size * op.kernel**2,
    )


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one target."""

    instructions: Mapping[str, Features]
    code: Mapping[str, int]

    def product(self, packing: str, n: int, k: int) -> float:
        return _dot(self.instructions[packing], product_features(packing, n, k))

    def other(self, program: IntegerProgram, op: Op, chained: bool = False) -> float:
        name, features = other_features(program, op, chained)
        return _dot(self.instructions[name], features)

    def pixels(self, program: IntegerProgram) -> float:
        return _dot(self.instructions["pixels"], (1, program.buffers[0].size))

    def code_bytes(self, names: set[str]) -> int:
        """Of functions, each aligned to four bytes."""
        return sum(-(-self.code.get(name, 0) // 4) * 4 for name in names)


def functions_of(program: IntegerProgram, stages: tuple[Stage, ...]) -> set[str]:
    """What the operations call, without kernels."""
    found = set(BASE)
    for stage in stages:
        for op in stage.ops:
            if isinstance(op, Product):
                whole = {"scrimp_conv_channel"} if stage.chained else {"scrimp_conv"}
                found |= (
                    {"scrimp_linear"} if is_linear(program, op) else {"convolve", "gather", "zeros", "__mulsi3", *whole}
                )
            else:
                own = {Add: "scrimp_add", MaxPool: "scrimp_max_pool", AvgPool: "scrimp_avg_pool"}[type(op)]
                found |= {own, "scrimp_multiply" if isinstance(op, Add) else "__mulsi3"}
    return found


def _dot(a: Features, b: Features) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


#: Thumb-2 is Thumb-2 in plain C99: these run what a Cortex-M3 runs, and a desk is counted as one.
_COUNTED_AS = {"cortex-m4": "cortex-m3", "cortex-m33": "cortex-m3", "host": "cortex-m3"}


@cache
def costs_of(target: str) -> Costs:
    table = tomllib.loads(files("scrimp.export.firmware").joinpath("costs.toml").read_text())
    counted, linked = _COUNTED_AS.get(target, target), "cortex-m3" if target == "host" else target
    if counted not in table or linked not in table:
        raise ScrimpError(f"costs.toml has no {target}.", hint="tools/firmware_costs.py measures it")
    instructions = {name: tuple(map(float, values)) for name, values in table[counted]["instructions"].items()}
    return Costs(instructions, table[linked]["code"])
