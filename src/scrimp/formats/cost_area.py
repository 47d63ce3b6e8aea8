"""Area of a multiply-accumulate in each format, in transistors, from circuits synthesised once (tools/area.py).

``area_table.toml`` holds the counts and the version of Yosys they came from; nobody needs Yosys to read them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from scrimp.formats.catalogue import ELEMENTS, NAMED
from scrimp.formats.element import Element
from scrimp.formats.floats import Exponent, Float
from scrimp.formats.format import Format, parse
from scrimp.formats.integers import Integer
from scrimp.formats.operands import Operand, floating, operand, power_of_two, sign_magnitude, twos_complement
from scrimp.formats.posits import Posit
from scrimp.formats.synthesis import Area
from scrimp.formats.verilog import Accumulator, Unit, integer_scaling, mac, scaling

#: Every area is also given as a multiple of this.
INT8 = "int8 * int8 -> fixed32"
#: Block sums whose scaling is synthesised; others are interpolated between these, or extrapolated.
SUM_BITS = (24, 32, 40)
#: The scale of a block as hardware reads it.
SCALES: dict[str, Operand] = {"e8m0": power_of_two(8), "e4m3": floating(4, 3), "bf16": floating(8, 7),
                              "f16": floating(5, 10), "f32": floating(8, 23)}  # fmt: skip
INTEGER_SCALES = {"u4": 4, "u6": 6}
#: Widths of the signed ones, which are not synthesised: a line through the unsigned ones.
SIGNED_INTEGERS = {"i6": 6, "i8": 8}


@dataclass(frozen=True, slots=True)
class MacArea:
    """Transistors of one multiply-accumulate, with its share of what its block adds."""

    transistors: float
    unit: str  #: the synthesised circuit
    scale_transistors: float  #: of them, the block's scaling, divided by the weights of a block
    interpolated: bool


def activation_of(weight: Format) -> Format:
    """What a weight is multiplied with unless told: its own format, or int8 per row where only weights have it."""
    e = weight.element
    alone = e.kind in ("ternary", "binary") or e.lopsided or (e.kind == "table" and operand(e).entries > 0)
    return parse("int8:row") if alone else weight


def accumulator_of(weight: Element, activation: Element) -> Accumulator:
    """float32 for floats of more than 8 bits and bare exponents, whose exact sums take hundreds of bits; else exact."""
    wide = any(isinstance(e.spec, Exponent) or (isinstance(e.spec, Float) and e.bits > 8) for e in (weight, activation))
    return "fp32" if wide else "fixed"


def operand_of(format: Format) -> Operand:
    """The hardware's view of one code of a format."""
    return operand(format.element, pairs=format.recipe is not None and format.recipe.pairs)


def block_of(weight: Format, activation: Format) -> tuple[int | None, str]:
    """Products that are summed exactly before scales apply, and the scale's type; None for scales per row or tensor,
    which are applied once to a finished sum and not charged."""
    blocks = [(f.block, f.scale) for f in (weight, activation) if isinstance(f.block, int) and f.scale is not None]
    return min(((block, scale) for block, scale in blocks), key=lambda found: found[0]) if blocks else (None, "")


def span_of(weight: Format, activation: Format) -> int | None:
    """Products under one super-block's scale, which is applied to a sum of blocks already scaled by integers."""
    return min((f.span for f in (weight, activation) if f.span is not None), default=None)


def mac_of(weight: Format, activation: Format, accumulator: Accumulator) -> Unit | None:
    """The circuit that multiplies two formats' elements. None where none is modelled: floats and posits have fp32 and
    fp16 accumulators, and logarithms multiply only their own kind."""
    pair = [operand_of(activation), operand_of(weight)]
    exact_only = accumulator != "fixed" and any(x.flushing is None for x in pair)
    if exact_only or (any(x.log for x in pair) and pair[0] != pair[1]):
        return None
    first, second = sorted(pair, key=lambda x: (x.entries > 0, x.name != "int8", -x.bits))
    return mac(first, second, accumulator)


def scale_units(scale: str) -> tuple[Unit, ...]:
    """What scales a block's sum, for every width of SUM_BITS."""
    if scale in INTEGER_SCALES:
        return tuple(integer_scaling(INTEGER_SCALES[scale], width) for width in SUM_BITS)
    return tuple(scaling(scale, SCALES[scale], width) for width in SUM_BITS)


def area_of(weight: Format, activation: Format, accumulator: Accumulator) -> MacArea | None:
    """None for a pair that is not in the table: tools/area.py says which are."""
    unit = mac_of(weight, activation, accumulator)
    found = table().get(unit.name) if unit is not None else None
    if unit is None or found is None:
        return None
    block, scale = block_of(weight, activation)
    if block is None:
        return MacArea(found.transistors, unit.name, 0.0, False)
    if accumulator != "fixed":
        return None  # blocks are summed exactly before they are scaled
    width = int(unit.accumulator.removeprefix("fixed"))
    # A min is a second product and sum per block; the sum of its activations is shared by all rows.
    both = 1 + (weight.has_min or activation.has_min)
    share = _scaling(scale, width) * both / block
    span = span_of(weight, activation)
    if span is not None:
        share += _scaling("f16", width + 2 * (INTEGER_SCALES | SIGNED_INTEGERS)[scale]) * both / span
    near = width in SUM_BITS and scale not in SIGNED_INTEGERS and span is None
    return MacArea(found.transistors + share, unit.name, share, not near)


def int8_transistors() -> int:
    return table()[INT8].transistors


def _scaling(scale: str, width: int) -> float:
    """Transistors that scale one block's sum of ``width`` bits."""
    if scale in SIGNED_INTEGERS:
        few, many = _scaling("u4", width), _scaling("u6", width)
        return few + (many - few) / 2 * (SIGNED_INTEGERS[scale] - 4)
    return _line(width, [table()[u.name].transistors for u in scale_units(scale)])


def _line(width: int, rows: list[int]) -> float:
    """Between the two nearest of SUM_BITS, or beyond them by the last two."""
    i = 0 if width < SUM_BITS[1] else 1
    slope = (rows[i + 1] - rows[i]) / (SUM_BITS[i + 1] - SUM_BITS[i])
    return rows[i] + slope * (width - SUM_BITS[i])


@cache
def table() -> dict[str, Area]:
    """Unit name → area, as committed."""
    text = resources.files("scrimp.formats").joinpath("area_table.toml").read_text(encoding="utf-8")
    return {name: Area(**row) for name, row in tomllib.loads(text)["units"].items()}


@cache
def yosys_version() -> str:
    """The version that made the table."""
    text = resources.files("scrimp.formats").joinpath("area_table.toml").read_text(encoding="utf-8")
    return str(tomllib.loads(text)["yosys"])


def catalogue_units() -> dict[str, Unit]:
    """Every circuit of the table: each element with what it is multiplied with by default, integers also with int8,
    floats and posits also with floating accumulators, scales, and sums of 16 lanes for comparing with block formats."""
    units = {u.name: u for u in _units() if u is not None}
    return dict(sorted(units.items()))


def _units() -> Iterator[Unit | None]:
    spellings = [f"{name}:tensor" if e.kind not in ("float", "table") else name for name, e in ELEMENTS.items()]
    for weight in map(parse, [*spellings, *NAMED]):
        activation = activation_of(weight)
        yield mac_of(weight, activation, accumulator_of(weight.element, activation.element))
        spec = weight.element.spec
        if isinstance(spec, Integer):
            yield mac_of(weight, parse("int8:row"), "fixed")
        if isinstance(spec, Float | Posit) and weight.element.bits <= 16:
            yield mac_of(weight, weight, "fp32")
        if isinstance(spec, Float) and weight.element.bits <= 8:
            yield mac_of(weight, weight, "fp16")
    for scale in (*SCALES, *INTEGER_SCALES):
        yield from scale_units(scale)
    for x in (twos_complement(8), twos_complement(4), sign_magnitude(4), sign_magnitude(8), floating(2, 1)):
        yield mac(x, x, lanes=16)
