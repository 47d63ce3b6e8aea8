"""Write src/scrimp/export/firmware/costs.toml: instructions counted under QEMU and bytes of code, for every chip.

Needs the compilers and QEMU that ``scrimp.export.firmware.simulate.missing`` names. A few minutes for all targets, or
less for those named as arguments; with ``--code`` bytes of code alone.
"""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scrimp.export.firmware import c_source, project, simulate, vectors
from scrimp.export.firmware.cost import FUNCTIONS, Features, other_features, product_features
from scrimp.export.firmware.memory import arena_of
from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.plan import STACK_BYTES
from scrimp.export.firmware.schedule import Stage, one_by_one
from scrimp.export.firmware.targets import TARGETS, Target
from scrimp.integer.program import Add, AvgPool, IntegerProgram, MaxPool, Op, Product, Requantize
from scrimp.models.cnn import Image, Pixels

COSTS = Path(__file__).resolve().parents[1] / "src" / "scrimp" / "export" / "firmware" / "costs.toml"
#: Others run the same instructions as one of these (cost.py).
COUNTED = ("rv32ec", "rv32imc", "cortex-m0", "cortex-m3")
SIZES = ((1, 9), (3, 64), (8, 40), (16, 144), (31, 95), (40, 320))
RNG = np.random.default_rng(0)


class Bench:
    """One directory with the runtime compiled once; programs come and go."""

    def __init__(self, target: Target, root: Path) -> None:
        self.target, self.directory = target, root / target.name
        program, stages, packings = _everything()
        texts = {
            **_texts(program, stages, packings),
            "vectors.h": vectors.header(program, None, 0),
            "Makefile": project.makefile(target, target.flash_most, target.ram_most, STACK_BYTES),
        }
        project.write(self.directory, target, set(PACKINGS), texts)
        simulate.build(self.directory)
        self.plugin = simulate.plugin_built(self.directory)
        self.code = simulate.functions(self.directory, target)

    def counts(self, program: IntegerProgram, packings: dict[str, str]) -> dict[str, int]:
        for name, text in _texts(program, one_by_one(program), packings).items():
            (self.directory / name).write_text(text)
        pictures = RNG.integers(0, 256, (1, program.buffers[0].size)).astype(np.uint8)
        ran = simulate.stream(self.directory, self.target, pictures, program.classes, self.plugin)
        return dict(ran.counts)


def _texts(program: IntegerProgram, stages: tuple[Stage, ...], packings: dict[str, str]) -> dict[str, str]:
    arena = arena_of(program, stages, packings)
    return {"model.h": c_source.header(program, arena), "model.c": c_source.source(program, stages, packings, arena)}


def _everything() -> tuple[IntegerProgram, tuple[Stage, ...], dict[str, str]]:
    """A program that links all of the runtime."""
    image = Image(6, 6, 4)
    images, ops = [image], list[Op]()
    average = Requantize(np.array([9000], np.int32), np.array([1 << 16], np.int32), 0, 17, -128, 127)
    ops += [
        _product("chained", 0, image, image, (3, 3), padding=1),
        MaxPool("m", 1, 2, 1, 1),
        _product("c", 2, image, image, (3, 3), padding=1),
        AvgPool("a", 3, 4, 1, 1, average),
        Add("p", (4, 3), 5, (9000, 7000), 1 << 14, 15, 0, 127),
    ]
    images += [image] * 5
    for at, packing in enumerate(PACKINGS, 5):
        ops.append(_product(packing, at, images[-1], Image(1, 1, 8), (images[-1].height, images[-1].width), packing))
        images.append(Image(1, 1, 8))
    stages = (Stage(tuple(ops[:2]), True), *(Stage((op,)) for op in ops[2:]))
    packings = {op.name: op.name if op.name in PACKINGS else "W8" for op in ops if isinstance(op, Product)}
    return IntegerProgram(tuple(images), Pixels(128, 0, 1.0), tuple(ops)), stages, packings


def _requantize(n: int) -> Requantize:
    """As lowering makes it: multipliers of 15 bits, offsets of three bytes."""
    return Requantize(
        RNG.integers(1 << 13, 1 << 15, n).astype(np.int32),
        RNG.integers(-(1 << 22), 1 << 22, n).astype(np.int32),
        0,
        18,
        0,
        127,
    )


def _product(
    name: str,
    source: int,
    image: Image,
    made: Image,
    kernel: tuple[int, int],
    packing: str = "W8",
    padding: int = 0,
    stride: int = 1,
    groups: int = 1,
) -> Product:
    n, k = made.channels, kernel[0] * kernel[1] * image.channels // groups
    low, high = PACKINGS[packing].low, PACKINGS[packing].high
    weight = RNG.integers(0, 2, (n, k)) * 2 - 1 if packing == "B1" else RNG.integers(max(low, -127), high + 1, (n, k))
    return Product(
        name, source, source + 1, weight.astype(np.int8), "int8", kernel, stride, padding, groups, _requantize(n)
    )


def _linear(n: int, k: int, packing: str = "W8") -> IntegerProgram:
    image, made = Image(1, 1, k), Image(1, 1, n)
    return IntegerProgram((image, made), Pixels(128, 0, 1.0), (_product("l", 0, image, made, (1, 1), packing),))


def _before_linear(image: Image, made: Image, op: Op) -> IntegerProgram:
    """``op``, and a linear of one output that makes it a network."""
    last = _product("l", 1, made, Image(1, 1, 1), (made.height, made.width))
    return IntegerProgram((image, made, Image(1, 1, 1)), Pixels(128, 0, 1.0), (op, last))


def _others() -> Iterator[IntegerProgram]:
    for side, channels, kernel, stride in ((8, 4, 2, 2), (9, 5, 3, 2), (6, 16, 2, 1), (12, 1, 3, 3), (7, 8, 7, 1)):
        image, out = Image(side, side, channels), (side - kernel) // stride + 1
        made = Image(out, out, channels)
        yield _before_linear(image, made, MaxPool("o", 0, 1, kernel, stride))
        average = Requantize(np.array([9000], np.int32), np.array([1 << 16], np.int32), 0, 17, -128, 127)
        yield _before_linear(image, made, AvgPool("o", 0, 1, kernel, stride, average))
    for size in (30, 100, 350):
        yield _before_linear(
            Image(1, 1, size), Image(1, 1, size), Add("o", (0, 0), 1, (9000, 7000), 1 << 14, 15, 0, 127)
        )
    for side, channels, n, kernel, groups in (
        (8, 3, 4, 3, 1),
        (8, 8, 8, 3, 8),
        (6, 16, 8, 1, 1),
        (6, 16, 16, 3, 4),
        (5, 8, 24, 3, 1),
        (10, 1, 12, 5, 1),
        (6, 4, 4, 5, 4),
        (7, 12, 2, 1, 1),
        (12, 4, 4, 3, 4),
        (9, 6, 12, 3, 2),
        (12, 1, 16, 3, 1),
    ):
        image, made = Image(side, side, channels), Image(side, side, n)
        yield _before_linear(
            image, made, _product("o", 0, image, made, (kernel, kernel), padding=kernel // 2, groups=groups)
        )


def _fit(features: Sequence[Features], counts: Sequence[float]) -> list[float]:
    """Relative least squares: small layers count as much as large ones."""
    matrix, values = np.array(features, float), np.array(counts, float)
    found = np.linalg.lstsq(matrix / values[:, None], np.ones(len(values)), rcond=None)[0]
    off = np.abs(matrix @ found / values - 1).max()
    print(f"    {len(values)} points, off by at most {100 * off:.1f} %", file=sys.stderr)
    return [round(float(value), 3) for value in found]


def measure(bench: Bench) -> dict[str, list[float]]:
    """The coefficients of every kernel and operation."""
    found: dict[str, list[float]] = {}
    linear: list[tuple[Features, int]] = []
    pixels: list[tuple[Features, int]] = []
    for packing in PACKINGS:
        points = list[tuple[Features, int]]()
        for n, k in SIZES:
            program = _linear(n, k, packing)
            counts = bench.counts(program, {"l": packing})
            own = sum(counts.get(name, 0) for name in {*FUNCTIONS[packing], "__mulsi3"})
            seen = counts["scrimp_pixels"] + counts["model_run"]
            points.append((product_features(packing, n, k), own))
            linear.append(((1, n), sum(counts.values()) - own - seen))
            pixels.append(((1, k), seen))
        print(f"  {packing}", file=sys.stderr)
        found[packing] = _fit(*zip(*points, strict=True))
    found["linear"] = _fit(*zip(*linear, strict=True))
    found["pixels"] = _fit(*zip(*pixels, strict=True))
    others: dict[str, list[tuple[Features, float]]] = {}
    for program in _others():
        op = program.ops[0]
        packings = {other.name: "W8" for other in program.ops if isinstance(other, Product)}
        counts = bench.counts(program, packings)
        drop = {*FUNCTIONS["W8"], "__mulsi3", "scrimp_pixels", "model_run"}
        run = sum(count for name, count in counts.items() if name not in drop) - np.dot(found["linear"], (1, 1))
        name, features = other_features(program, op, False)
        others.setdefault(name, []).append((features, run))
    for name, points in others.items():
        print(f"  {name}", file=sys.stderr)
        found[name] = _fit(*zip(*points, strict=True))
    return found


def main() -> None:
    """Of the targets named, or of all."""
    known = tomllib.loads(COSTS.read_text()) if COSTS.exists() else {}
    arguments = [argument for argument in sys.argv[1:] if argument != "--code"]
    wanted = arguments or [target.name for target in TARGETS.values() if target.chip]
    with tempfile.TemporaryDirectory() as root:
        for name in wanted:
            print(name, file=sys.stderr)
            bench = Bench(TARGETS[name], Path(root))
            known.setdefault(name, {})["code"] = dict(sorted(bench.code.items()))
            if name in COUNTED and "--code" not in sys.argv:
                known[name]["instructions"] = measure(bench)
            COSTS.write_text(_text(known))


def _text(known: dict[str, dict[str, dict[str, Any]]]) -> str:
    lines = [
        "# Written by tools/firmware_costs.py. Instructions: coefficients of the features in cost.py, fitted to",
        "# counts under QEMU. Code: bytes of each function, as the Makefile compiles it.",
    ]
    for name, parts in sorted(known.items()):
        for part, values in parts.items():
            lines += ["", f"[{name}.{part}]", *(f"{key} = {value}" for key, value in values.items() if value)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
