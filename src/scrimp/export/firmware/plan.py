"""Which packing each layer gets, in which order the network runs and where everything lies, before anything is written.

Without a limit the plan has the fewest instructions that the cost table predicts. Where ``flash`` or ``ram`` is short,
packings are exchanged one by one until it fits (choose.py): few instructions, not proven to be the fewest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scrimp.errors import GoalNotMet, Refused, UsageError
from scrimp.export.firmware.arena import Arena
from scrimp.export.firmware.choose import Choice, Option, options, solve
from scrimp.export.firmware.cost import Costs, costs_of, functions_of
from scrimp.export.firmware.flash import call_bytes, operation_bytes
from scrimp.export.firmware.memory import arena_of
from scrimp.export.firmware.schedule import Stage, by_channel, one_by_one, schedules
from scrimp.export.firmware.targets import Target
from scrimp.integer.program import Add, IntegerProgram, Product, inputs_of

#: Kept for the stack: 300 bytes were the most that was measured, reading and writing files included.
STACK_BYTES = 384
#: Fields of the runtime's structures are uint16.
LARGEST_SIDE = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class Layer:
    """An operation of the plan; bytes in flash, ``instructions`` per picture as the cost table predicts them."""

    name: str
    packing: str
    weights: int
    weight_bytes: int
    parameter_bytes: int
    instructions: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """``flash`` counts code, constants and weights without test vectors, ``ram`` the arena and the stack."""

    target: Target
    stages: tuple[Stage, ...]
    packings: Mapping[str, str]
    arena: Arena
    layers: tuple[Layer, ...]
    code_bytes: int
    instructions: int

    @property
    def flash(self) -> int:
        return self.code_bytes + sum(layer.weight_bytes + layer.parameter_bytes for layer in self.layers)

    @property
    def ram(self) -> int:
        return self.arena.size + STACK_BYTES

    @property
    def chained(self) -> bool:
        return any(stage.chained for stage in self.stages)


def plan(
    program: IntegerProgram,
    target: Target,
    flash: int | None = None,
    ram: int | None = None,
    forced: Mapping[str, str] | None = None,
    chains: bool | None = None,
) -> Plan:
    """``forced``: operation → packing, where it is not to be chosen; ``chains``: whether channels are computed one by
    one; None where that is to be chosen too.

    Errors: Refused where an operation can't be expressed, GoalNotMet where nothing fits.
    """
    _check(program, forced or {})
    costs = costs_of(target.name)
    orders = [] if chains else [one_by_one(program)]
    if chains is not False:
        orders += schedules(program) if chains is None else [by_channel(program)]
    tried = list[Choice]()
    best: Plan | None = None
    for order in orders:
        made = _planned(program, target, order, costs, flash, ram, forced or {})
        if isinstance(made, Choice):
            tried.append(made)
        elif best is None or made.instructions < best.instructions:
            best = made
        if best is not None and not best.chained:
            break  # what fits as a whole is faster than any chain
    if best is None:
        raise _does_not_fit(program, tried, flash, ram)
    return best


def _planned(
    program: IntegerProgram,
    target: Target,
    stages: tuple[Stage, ...],
    costs: Costs,
    flash: int | None,
    ram: int | None,
    forced: Mapping[str, str],
) -> Plan | Choice:
    """A plan, or the nearest to one that does not fit."""
    fixed = costs.code_bytes(functions_of(program, stages)) + call_bytes(program, stages)
    parameters = {op.name: operation_bytes(program, op) for stage in stages for op in stage.ops}
    found = options(program, stages, costs, forced)
    room = None if ram is None else ram - STACK_BYTES
    choice = solve(
        program, stages, found, costs, None if flash is None else flash - fixed - sum(parameters.values()), room
    )
    if not choice.fits:
        return Choice(choice.packings, choice.flash + fixed + sum(parameters.values()), choice.ram + STACK_BYTES, False)
    layers, total = list[Layer](), costs.pixels(program)
    for stage in stages:
        for op in stage.ops:
            other = costs.other(program, op, stage.chained)
            chosen = found[op.name][choice.packings[op.name]] if isinstance(op, Product) else None
            run = other + (chosen.instructions if chosen else 0.0)
            total += run
            layers.append(
                Layer(
                    op.name,
                    chosen.packing if chosen else "",
                    op.weight.size if isinstance(op, Product) else 0,
                    chosen.bytes if chosen else 0,
                    parameters[op.name],
                    round(run),
                    _reason(chosen, found[op.name], op.weight.size)
                    if chosen and isinstance(op, Product)
                    else ("a channel at a time" if stage.chained else ""),
                )
            )
    arena = arena_of(program, stages, choice.packings)
    code = fixed + costs.code_bytes(choice.functions)
    return Plan(target, stages, choice.packings, arena, tuple(layers), code, round(total))


def _reason(chosen: Option, all_: Mapping[str, Option], weights: int) -> str:
    """In words, beside the next best."""
    if len(all_) == 1:
        return "the only one that holds these weights"
    fastest = min(all_.values(), key=lambda option: option.instructions)
    each = chosen.instructions / (chosen.calls * weights)
    if chosen is fastest:
        second = min((option for option in all_.values() if option is not chosen), key=lambda o: o.instructions)
        beside = second.instructions / (second.calls * weights)
        return f"fastest: {each:.1f} instructions per weight, {second.packing} takes {beside:.1f}"
    return (
        f"{chosen.bytes - fastest.bytes:+,} bytes beside {fastest.packing}, "
        f"{each:.1f} instructions per weight instead of {fastest.instructions / (fastest.calls * weights):.1f}"
    )


def _check(program: IntegerProgram, forced: Mapping[str, str]) -> None:
    names = {op.name for op in program.ops}
    if not program.ops or not isinstance(program.ops[-1], Product):
        raise Refused(
            "The last operation of firmware must be a product that makes the logits.", hint="leave out what follows it"
        )
    if len(names) != len(program.ops):
        raise Refused("Two operations have the same name.", hint="give each its own")
    if strange := forced.keys() - {op.name for op in program.ops if isinstance(op, Product)}:
        raise UsageError(
            f"'{min(strange)}' is no layer with weights.", hint="forced packings name convolutions or linears"
        )
    known = {0}
    for op in program.ops:
        if not known.issuperset(inputs_of(op)) or op.output in known or op.output >= len(program.buffers):
            raise Refused(
                f"{op.name} reads what is not there yet, or writes what is.",
                hint="operations stand in the order they run, each with an output of its own",
            )
        known.add(op.output)
        sides = [
            side
            for index in (*inputs_of(op), op.output)
            for side in (program.buffers[index].height, program.buffers[index].width, program.buffers[index].channels)
        ]
        if not isinstance(op, Add):
            sides += [op.kernel, op.stride] if not isinstance(op, Product) else [*op.kernel, op.stride, op.padding]
        if max(sides) > LARGEST_SIDE:
            raise Refused(
                f"{op.name} has {max(sides):,} channels, points in a line or steps.",
                hint=f"firmware counts them up to {LARGEST_SIDE:,}",
            )


def _does_not_fit(program: IntegerProgram, tried: list[Choice], flash: int | None, ram: int | None) -> GoalNotMet:
    """What is lacking of the least that was found, and what would help."""
    flash_needed, ram_needed = min(made.flash for made in tried), min(made.ram for made in tried)
    if ram is not None and ram_needed > ram:
        largest = max(program.ops, key=lambda op: sum(program.buffers[i].size for i in (*inputs_of(op), op.output)))
        return GoalNotMet(
            f"The network needs {ram_needed:,} bytes of RAM; there are {ram:,}.",
            hint=f"{largest.name} reads and writes most: fewer channels (hidden outputs) or a smaller picture there",
        )
    heaviest = max((op for op in program.ops if isinstance(op, Product)), key=lambda op: op.weight.size)
    less = " or ternary weights" if heaviest.element not in ("ternary", "binary") else ""
    if flash is not None and flash_needed > flash:
        return GoalNotMet(
            f"The network needs {flash_needed:,} bytes of flash; there are {flash:,}.",
            hint=f"{heaviest.name} has {heaviest.weight.size:,} weights: fewer outputs or inputs{less} there",
        )
    return GoalNotMet(
        f"No plan fits into {flash:,} bytes of flash and {ram:,} of RAM at the same time.",
        hint=f"{flash_needed:,} of flash or {ram_needed:,} of RAM alone would be possible",
    )
