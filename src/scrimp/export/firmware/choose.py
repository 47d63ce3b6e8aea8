"""The packing of every layer: fewest instructions under two limits.

Kernels cost flash once, weights by layer, so every set of kernels is tried: within one, all layers start with their
fastest packing, and while the whole is too large the exchange with the fewest instructions per byte saved is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from scrimp.errors import UsageError
from scrimp.export.firmware.cost import FUNCTIONS, Costs
from scrimp.export.firmware.memory import arena_of
from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.schedule import Stage, is_linear
from scrimp.integer.program import IntegerProgram, Product


@dataclass(frozen=True, slots=True)
class Option:
    """A packing of a layer: bytes of all weights, instructions of all ``calls`` of its kernel."""

    packing: str
    bytes: int
    instructions: float
    calls: float  #: how often each weight is used

    @property
    def tables(self) -> int:
        return PACKINGS[self.packing].tables


@dataclass(frozen=True, slots=True)
class Choice:
    """``flash``: of weights and kernels; ``ram``: the arena."""

    packings: Mapping[str, str]
    flash: int
    ram: int
    fits: bool

    @property
    def functions(self) -> set[str]:
        return {name for packing in self.packings.values() for name in FUNCTIONS[packing]}


Options = Mapping[str, Mapping[str, Option]]


def options(program: IntegerProgram, stages: tuple[Stage, ...], costs: Costs, forced: Mapping[str, str]) -> Options:
    """Of every product, by packing. UsageError where a forced one can't hold the weights."""
    found: dict[str, dict[str, Option]] = {}
    for stage in stages:
        for op in stage.ops:
            if not isinstance(op, Product):
                continue
            names = [name for name, packing in PACKINGS.items() if packing.holds(op.weight)]
            if (wish := forced.get(op.name)) is not None:
                if wish not in names:
                    raise UsageError(f"{wish} does not hold the weights of {op.name}.", hint=f"{', '.join(names)} do")
                names = [wish]
            found[op.name] = {name: _option(program, op, name, stage.chained, costs) for name in names}
    return found


def _option(program: IntegerProgram, op: Product, name: str, chained: bool, costs: Costs) -> Option:
    parts = len(op.weight) if chained else op.groups
    rows, inputs = len(op.weight) // parts, op.weight.shape[1]
    made = program.buffers[op.output]
    pixels = 1 if is_linear(program, op) else made.height * made.width
    run = costs.product(name, rows, inputs)
    return Option(name, -(-PACKINGS[name].bytes(rows, inputs) * parts // 4) * 4, run * parts * pixels, pixels)


def solve(
    program: IntegerProgram, stages: tuple[Stage, ...], found: Options, costs: Costs, flash: int | None, ram: int | None
) -> Choice:
    """The fastest that fits; where none does, the smallest, which does not ``fit``."""
    least = _arena(
        program, stages, {name: min(all_.values(), key=lambda o: o.tables).packing for name, all_ in found.items()}
    )
    allowed = found if ram is None else {name: _within(program, stages, found, name, ram) for name in found}
    smallest: tuple[int, dict[str, str]] | None = None
    best: tuple[float, dict[str, str]] | None = None
    for kernels in _sets(allowed):
        packings = _exchange(allowed, kernels, costs, flash)
        if packings is None:
            continue
        size = _flash(found, packings, costs)
        if smallest is None or size < smallest[0]:
            smallest = size, packings
        run = sum(found[name][packing].instructions for name, packing in packings.items())
        if (
            (flash is None or size <= flash)
            and (best is None or run < best[0])
            and (ram is None or _arena(program, stages, packings) <= ram)
        ):
            best = run, packings
    if best is not None:
        return Choice(best[1], _flash(found, best[1], costs), _arena(program, stages, best[1]), True)
    size, packings = smallest or (
        min(
            _flash(
                found, {name: min(all_.values(), key=lambda o: o.bytes).packing for name, all_ in found.items()}, costs
            ),
            1 << 62,
        ),
        {},
    )
    return Choice(packings, size, least, False)


def _within(
    program: IntegerProgram, stages: tuple[Stage, ...], found: Options, name: str, ram: int
) -> dict[str, Option]:
    """Options of a layer that fit while all others take as little RAM as they can."""
    others = {other: min(all_.values(), key=lambda o: o.tables).packing for other, all_ in found.items()}
    return {
        packing: option
        for packing, option in found[name].items()
        if _arena(program, stages, {**others, name: packing}) <= ram
    }


def _arena(program: IntegerProgram, stages: tuple[Stage, ...], packings: Mapping[str, str]) -> int:
    return arena_of(program, stages, packings).size


def _sets(found: Options) -> Iterator[set[str]]:
    names = sorted({packing for all_ in found.values() for packing in all_}, key=list(PACKINGS).index)
    for size in range(1, min(len(names), 5) + 1):
        yield from map(set, combinations(names, size))


def _exchange(found: Options, kernels: set[str], costs: Costs, flash: int | None) -> dict[str, str] | None:
    open_ = {name: [option for option in all_.values() if option.packing in kernels] for name, all_ in found.items()}
    if not all(open_.values()):
        return None
    chosen = {name: min(all_, key=lambda o: (o.instructions, o.bytes)) for name, all_ in open_.items()}
    while flash is not None and _flash(found, {name: o.packing for name, o in chosen.items()}, costs) > flash:
        steps = [
            (
                float((option.instructions - chosen[name].instructions) / (chosen[name].bytes - option.bytes)),
                name,
                option,
            )
            for name, all_ in open_.items()
            for option in all_
            if option.bytes < chosen[name].bytes
        ]
        if not steps:
            break
        _, name, option = min(steps, key=lambda step: step[:2])
        chosen[name] = option
    return {name: option.packing for name, option in chosen.items()}


def _flash(found: Options, packings: Mapping[str, str], costs: Costs) -> int:
    kernels = {function for packing in packings.values() for function in FUNCTIONS[packing]}
    return int(np.sum([found[name][packing].bytes for name, packing in packings.items()])) + costs.code_bytes(kernels)
