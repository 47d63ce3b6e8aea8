"""Energy of one operation of any width: published tables, and formulas between and beyond their rows.

Additions of integers are linear in the bits between two rows. Multiplications are powers through two rows: of both
widths' product for integers (0.99 at 45 nm, 1.10 at 7 nm), of the significands' for floats (1.55 and 1.73).
What a formula made says so.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from scrimp.errors import UsageError, nearest

NODES = ("45nm", "7nm")
#: Bits of one access in the tables of memory.
ACCESS_BITS = 64


@dataclass(frozen=True, slots=True)
class Joules:
    """Picojoules, where they come from, and whether a formula made them."""

    pj: float
    sources: tuple[str, ...] = ()
    interpolated: bool = False

    def __add__(self, other: Joules) -> Joules:
        sources = tuple(dict.fromkeys((*self.sources, *other.sources)))
        return Joules(self.pj + other.pj, sources, self.interpolated or other.interpolated)

    def times(self, factor: float) -> Joules:
        return Joules(self.pj * factor, self.sources, self.interpolated)


NOTHING = Joules(0.0)


@dataclass(frozen=True, slots=True)
class Level:
    """A memory, and what a bit read from it costs. ``high``: the upper end, where a range is published."""

    name: str
    pj_bit: float
    pj_bit_high: float
    source: str


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    text = resources.files("scrimp.formats").joinpath("cost_tables.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _source(row: dict[str, Any]) -> str:
    return f"{row['source']} ({row['node']}, read {row['read'] if row['read'] == 'second-hand' else 'from memory'})"


def _operation(node: str, op: str) -> dict[int, dict[str, Any]]:
    """Bits → row of one operation. UsageError for a node that has no table."""
    check_node(node)
    return {row["bits"]: row for row in _rows()["operation"] if row["node"] == node and row["op"] == op}


def check_node(node: str) -> None:
    if node not in NODES:
        hint = nearest(node, list(NODES)) or "use 45nm or 7nm"
        raise UsageError(f"There is no table of energies for '{node}'.", hint=hint)


def integer_addition(bits: int, node: str) -> Joules:
    """
    >>> integer_addition(32, "45nm").pj, round(integer_addition(24, "45nm").pj, 4)
    (0.1, 0.075)
    """
    rows = _operation(node, "int_add")
    if bits in rows:
        return Joules(rows[bits]["pj"], (_source(rows[bits]),))
    known = sorted(rows)
    upper = next((i for i, width in enumerate(known) if width > bits and i > 0), len(known) - 1)
    low, high = rows[known[upper - 1]], rows[known[upper]]
    slope = (high["pj"] - low["pj"]) / (high["bits"] - low["bits"])
    return Joules(low["pj"] + slope * (bits - low["bits"]), tuple(dict.fromkeys((_source(low), _source(high)))), True)


def integer_multiplication(a_bits: int, b_bits: int, node: str) -> Joules:
    """
    >>> integer_multiplication(8, 8, "45nm").pj, round(integer_multiplication(8, 4, "45nm").pj, 3)
    (0.2, 0.101)
    """
    rows = _operation(node, "int_mul")
    if a_bits == b_bits and a_bits in rows:
        return Joules(rows[a_bits]["pj"], (_source(rows[a_bits]),))
    power = math.log(rows[32]["pj"] / rows[8]["pj"]) / math.log(32 * 32 / (8 * 8))
    return Joules(rows[8]["pj"] * (a_bits * b_bits / 64) ** power, (_source(rows[8]), _source(rows[32])), True)


def float_multiplication(a_bits: int, b_bits: int, node: str) -> Joules:
    """By the bits of the significands: 11 for float16.

    >>> float_multiplication(24, 24, "45nm").pj, round(float_multiplication(4, 4, "45nm").pj, 2)
    (3.7, 0.23)
    """
    rows = _operation(node, "float_mul")
    if a_bits == b_bits and a_bits in rows:
        return Joules(rows[a_bits]["pj"], (_source(rows[a_bits]),))
    power = math.log(rows[24]["pj"] / rows[11]["pj"]) / math.log(24 / 11)
    energy = rows[11]["pj"] * (a_bits * b_bits / 121) ** (power / 2)
    return Joules(energy, (_source(rows[11]), _source(rows[24])), True)


def float_addition(bits: int, node: str) -> Joules:
    """Of float16 (11 bits) or float32 (24): the accumulators there are."""
    row = _operation(node, "float_add")[bits]
    return Joules(row["pj"], (_source(row),))


def levels(node: str) -> tuple[Level, ...]:
    """Every memory of a node's table, nearest first."""
    check_node(node)
    return tuple(
        Level(row["level"], row["pj"] / ACCESS_BITS, row.get("pj_high", row["pj"]) / ACCESS_BITS, _source(row))
        for row in _rows()["memory"]
        if row["node"] == node
    )


def level(name: str, node: str) -> Level:
    """One memory by name. UsageError where the node's table has none of it."""
    known = {found.name: found for found in levels(node)}
    if name not in known:
        raise UsageError(f"The {node} table has no memory called '{name}'.", hint=f"it has {', '.join(known)}")
    return known[name]
