"""What a format costs in hardware built for it: energy per operation and per bit, and area. Modelled, never measured.

Energy is counted in operations of published tables (cost_energy.py), area in transistors of synthesised circuits
(cost_area.py). Neither knows of instructions, wires, clocks or leakage: a processor spends far more than this on the
same work, and ratios between formats mean more than picojoules.

>>> int8 = of("int8:row")
>>> int8.energy_pj_mac, int8.accumulator, int8.area_vs_int8, int8.interpolated
(0.30000000000000004, 'fixed32', 1.0, False)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from scrimp.formats import cost_energy
from scrimp.formats.cost_area import (
    SCALES,
    accumulator_of,
    activation_of,
    area_of,
    block_of,
    int8_transistors,
    operand_of,
    span_of,
    yosys_version,
)
from scrimp.formats.cost_energy import NOTHING, Joules, level, levels
from scrimp.formats.format import Format, parse
from scrimp.formats.operands import Operand
from scrimp.formats.verilog import FLOATING, Accumulator, fixed_bits

__all__ = ["Cost", "Energy", "Part", "activation_of", "energy", "levels", "macs_per_token", "of", "token_energy"]

#: The matrix that bits per weight are stated for where none is given.
SHAPE = (4096, 4096)
#: Of the entries of a codebook that weights are looked up in.
ENTRY_BITS = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One contribution to the energy of a multiply-accumulate."""

    name: str
    energy: Joules


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one multiply-accumulate and one stored weight. Always a model: ``modelled`` is True."""

    format: str
    activation: str  #: what it is multiplied with
    accumulator: str  #: "fixed32", "fp32"
    node: str
    energy_pj_mac: float
    energy_pj_bit: float  #: of moving one bit from DRAM
    energy_pj_weight: float  #: of moving one weight from DRAM, its share of the scales included
    bits_per_weight: float
    parts: tuple[Part, ...]  #: of energy_pj_mac
    area_transistors: float | None  #: None where the circuit is not in the table
    area_vs_int8: float | None
    area_unit: str | None  #: the synthesised circuit
    interpolated: bool  #: some figure comes from a formula between or beyond published rows
    sources: tuple[str, ...]
    modelled: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Energy:
    """Of a layer or a model: operations times a table, plus bits moved. Always a model: ``modelled`` is True."""

    pj_compute: float
    pj_memory: float
    node: str
    level: str  #: the memory that the bytes come from
    interpolated: bool
    sources: tuple[str, ...]
    modelled: bool = True

    @property
    def pj(self) -> float:
        return self.pj_compute + self.pj_memory

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``json.dumps``, the total included."""
        return dataclasses.asdict(self) | {"pj": self.pj}


def of(
    format: Format | str,
    *,
    node: str = "45nm",
    activation: Format | str | None = None,
    accumulator: Accumulator | None = None,
    reuse: float = 1.0,
    shape: tuple[int, int] = SHAPE,
) -> Cost:
    """The cost of ``format``.

    ``activation``: what it is multiplied with: itself, or int8 where only weights have the format (ternary, codebooks).
    ``accumulator``: "fixed" (exact; the default up to 8 bits), "fp32" or "fp16".
    ``reuse``: multiplications per lookup in a codebook: 1 looks up every time, 16 once for 16 tokens.
    """
    weight, other, into = _resolved(format, activation, accumulator)
    parts = _parts(weight, other, into, node, reuse)
    total = sum((part.energy for part in parts), NOTHING)
    memory = level("DRAM", node)
    area = area_of(weight, other, into)
    bits = weight.bits_per_weight(*shape)
    sources = [*total.sources, memory.source, *([f"Yosys {yosys_version()}"] if area is not None else [])]
    return Cost(
        format=weight.name,
        activation=other.name,
        accumulator=into if into != "fixed" else f"fixed{_sum_bits(weight, other)}",
        node=node,
        energy_pj_mac=total.pj,
        energy_pj_bit=memory.pj_bit,
        energy_pj_weight=bits * memory.pj_bit,
        bits_per_weight=bits,
        parts=parts,
        area_transistors=area.transistors if area is not None else None,
        area_vs_int8=area.transistors / int8_transistors() if area is not None else None,
        area_unit=area.unit if area is not None else None,
        interpolated=total.interpolated or (area is not None and area.interpolated),
        sources=tuple(dict.fromkeys(sources)),
    )


def energy(
    macs: float,
    weight_format: Format | str,
    activation_format: Format | str | None,
    bytes_moved: float,
    node: str = "45nm",
    *,
    accumulator: Accumulator | None = None,
    reuse: float = 1.0,
    memory: str = "DRAM",
) -> Energy:
    """Energy of ``macs`` multiply-accumulates in the given formats and of moving ``bytes_moved`` from ``memory``."""
    weight, other, into = _resolved(weight_format, activation_format, accumulator)
    compute = sum((part.energy for part in _parts(weight, other, into, node, reuse)), NOTHING).times(macs)
    moved = level(memory, node)
    sources = tuple(dict.fromkeys((*compute.sources, moved.source)))
    return Energy(compute.pj, 8 * bytes_moved * moved.pj_bit, node, memory, compute.interpolated, sources)


class Operation(Protocol):
    """What is asked of a Program's operations (program.py), of which the formats know nothing."""

    @property
    def kind(self) -> str: ...
    @property
    def weights(self) -> tuple[str, ...]: ...
    @property
    def ints(self) -> tuple[int, ...]: ...


class Network(Protocol):
    """What is asked of a Program."""

    @property
    def ops(self) -> Sequence[Operation]: ...
    @property
    def matrices(self) -> Mapping[str, tuple[int, int]]: ...


def macs_per_token(program: Network, position: int = 0) -> dict[str, int]:
    """Multiply-accumulates to decode the token at ``position``, by matrix; those of attention under ``"attention"``.

    A matrix used twice (a tied head counts as a matrix, the embedding's row does not) is counted twice.
    """
    macs: dict[str, int] = {}
    for op in program.ops:
        if op.kind == "linear":
            for name in op.weights:
                rows, cols = program.matrices[name]
                macs[name] = macs.get(name, 0) + rows * cols
        elif op.kind == "attention":
            _, heads, _, head_dim, window, *_ = op.ints
            seen = min(position + 1, window or position + 1)
            macs["attention"] = macs.get("attention", 0) + 2 * heads * head_dim * seen
    return macs


def token_energy(
    program: Network,
    formats: Mapping[str, Format],
    bytes_per_token: float,
    node: str = "45nm",
    *,
    position: int = 0,
    activation: Callable[[Format], Format] = activation_of,
    memory: str = "DRAM",
) -> Energy:
    """Energy to decode one token: every matrix in its format, attention in float16 with float32 sums, the bytes read.

    ``bytes_per_token``: what measure/traffic.py counts for the same position. ``activation``: what a weight is
    multiplied with.
    """
    total = energy(0, "f16", None, bytes_per_token, node, memory=memory)
    for name, macs in macs_per_token(program, position).items():
        weight = parse("f16") if name == "attention" else formats[name]
        other = weight if name == "attention" else activation(weight)
        own = energy(macs, weight, other, 0, node, memory=memory)
        sources = tuple(dict.fromkeys((*total.sources, *own.sources)))
        total = dataclasses.replace(total, pj_compute=total.pj_compute + own.pj_compute, sources=sources,
                                    interpolated=total.interpolated or own.interpolated)  # fmt: skip
    return total


def _resolved(
    weight: Format | str, activation: Format | str | None, accumulator: Accumulator | None
) -> tuple[Format, Format, Accumulator]:
    weight = parse(weight) if isinstance(weight, str) else weight
    other = parse(activation) if isinstance(activation, str) else activation or activation_of(weight)
    return weight, other, accumulator or accumulator_of(weight.element, other.element)


def _sum_bits(weight: Format, activation: Format) -> int:
    return fixed_bits(operand_of(weight), operand_of(activation))


def _parts(weight: Format, activation: Format, accumulator: Accumulator, node: str, reuse: float) -> tuple[Part, ...]:
    w, a = operand_of(weight), operand_of(activation)
    parts = []
    if w.unpublished or a.unpublished:
        parts.append(Part("multiply and add, by area", _by_area(weight, activation, accumulator, node)))
    else:
        parts.append(Part("multiply", _product(w, a, node)))
        parts.append(Part("accumulate", _sum(weight, activation, accumulator, node)))
    reads = sum(x.entries > 0 for x in (w, a))
    if reads:
        small = levels(node)[0]
        # The smallest memory with a published figure is far larger than a table of 16 entries: an upper bound.
        read = Joules(reads * ENTRY_BITS * small.pj_bit / reuse, (small.source,), True)
        parts.append(Part("read the codebook", read))
    block, scale = block_of(weight, activation)
    if block is not None:
        scaling = _scaling(scale, _sum_bits(weight, activation), node, has_min=weight.has_min or activation.has_min)
        parts.append(Part(f"scale, per {block}", scaling.times(1 / block)))
        span = span_of(weight, activation)
        if span is not None:
            above = _scaling("f16", 0, node, has_min=weight.has_min or activation.has_min)
            parts.append(Part(f"scale, per {span}", above.times(1 / span)))
    return tuple(parts)


def _product(w: Operand, a: Operand, node: str) -> Joules:
    """Nothing for a single bit without exponent: it adds, subtracts or skips."""
    if 1 in (w.sig + w.exp, a.sig + a.exp):
        return NOTHING
    if max(w.exp, a.exp) > 1:
        return cost_energy.float_multiplication(w.sig, a.sig, node)
    # A sign beside a magnitude is no part of the multiplication.
    product = cost_energy.integer_multiplication(w.sig, a.sig, node)
    return product + _shift(w.sig + a.sig + w.exp + a.exp, node) if w.exp or a.exp else product


def _shift(width: int, node: str) -> Joules:
    """No table has it: an addition of that width, and so marked."""
    addition = cost_energy.integer_addition(width, node)
    return Joules(addition.pj, addition.sources, True)


def _sum(weight: Format, activation: Format, accumulator: Accumulator, node: str) -> Joules:
    if accumulator == "fixed":
        return cost_energy.integer_addition(_sum_bits(weight, activation), node)
    return cost_energy.float_addition(FLOATING[accumulator][1] + 1, node)


def _by_area(weight: Format, activation: Format, accumulator: Accumulator, node: str) -> Joules:
    """Where no table has the operation: an int8 multiply-accumulate, times the transistors over its own."""
    area = area_of(dataclasses.replace(weight, block=None, scale=None, recipe=None), activation, accumulator)
    assert area is not None, f"{weight.name} has no circuit"
    int8 = cost_energy.integer_multiplication(8, 8, node) + cost_energy.integer_addition(32, node)
    sources = (*int8.sources, f"Yosys {yosys_version()}")
    return Joules(int8.pj * area.transistors / int8_transistors(), sources, True)


def _scaling(scale: str, width: int, node: str, *, has_min: bool) -> Joules:
    """Of one block: both scales multiplied, the block's sum multiplied by that, added to the sum of all blocks.

    Powers of two are added, and shift the sum.
    """
    if scale not in SCALES:  # integers
        bits = int(scale[1:])
        applied = cost_energy.integer_multiplication(width, 2 * bits, node)
        both = cost_energy.integer_multiplication(bits, bits, node)
        return (both + applied + cost_energy.integer_addition(width + 2 * bits, node)).times(1 + has_min)
    added = cost_energy.float_addition(24, node)
    if scale == "e8m0":
        return cost_energy.integer_addition(8, node) + _shift(width, node) + added
    bits = SCALES[scale].sig
    applied = cost_energy.float_multiplication(24, 24, node) + added
    return cost_energy.float_multiplication(bits, bits, node) + applied.times(1 + has_min)
