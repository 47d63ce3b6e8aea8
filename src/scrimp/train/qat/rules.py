"""How a weight in training gets its scale, by name, and which Formats each rule can serve. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from scrimp.errors import UsageError, nearest
from scrimp.formats import Format
from scrimp.formats.element import Element
from scrimp.formats.format import SIGNED_SCALES

Rule = Literal["absmean", "sign", "absmax", "octav", "lsq", "seq", "kmeans", "format", "float"]
RULES: tuple[Rule, ...] = get_args(Rule)
#: The step of the uniform quantizer with the least squared error for a Gaussian of unit variance, by its levels. Here
#: learned scales start. Source: Max 1960, "Quantizing for minimum distortion", table II; above 36 levels Jayant and
#: Noll 1984, table 4.1.
BEST_STEP = MappingProxyType({2: 1.5956, 3: 1.2240, 4: 0.9957, 8: 0.5860, 16: 0.3352, 32: 0.1881, 64: 0.1041,
                              128: 0.0569, 256: 0.0308})  # fmt: skip
#: SEQ's gradient passes up to this share of its range (ParetoQ's reference).
SEQ_WINDOW = 0.99


@dataclass(frozen=True, slots=True)
class Levels:
    """Code c means the number ``step · c − zero``, c = 0 … top; half numbers where SEQ has them."""

    step: float
    zero: float
    top: int

    @property
    def low(self) -> float:
        return -self.zero

    @property
    def high(self) -> float:
        return self.step * self.top - self.zero


def levels(format: Format, rule: Rule) -> Levels:
    """Of a format that is trained code by code. Two bits under SEQ are ±½ and ±1½, stored as a codebook of four."""
    element = format.element
    if rule == "seq" and element.name == "kmeans2":
        return Levels(1, 1.5, 3)
    return Levels(element.step, element.zero, element.levels - 1)


def default_rule(format: Format) -> Rule:
    """What a recipe that names none gets."""
    element = format.element
    if element.name == "f32":
        return "float"
    if not _plain(format):
        return "kmeans" if _serves("kmeans", format) else "format"
    if not _serves("lsq", format):
        return "format"
    return {"ternary": "seq", "binary": "sign"}.get(element.kind, "lsq")  # type: ignore[return-value]


def check_rule(format: Format, rule: str) -> Rule:
    """The rule, where it can serve the format; else UsageError with those that can."""
    if rule not in RULES:
        raise UsageError(f"'{rule:.40}' is no rule for scales.",
                         hint=nearest(rule, list(RULES)) or f"there are {', '.join(RULES)}")  # fmt: skip
    able = [name for name in RULES if _serves(name, format)]
    if rule not in able:
        raise UsageError(f"The rule '{rule}' can't choose scales of {format.name}.", hint=f"use {' or '.join(able)}")
    found: Rule = rule
    return found


def _serves(rule: Rule, format: Format) -> bool:
    element, plain = format.element, _plain(format)
    if rule in ("float", "format"):
        return (element.name == "f32") == (rule == "float")
    if rule == "kmeans":
        return element.name.startswith("kmeans") and format.scale in SIGNED_SCALES
    if rule == "seq":
        return (plain and element.kind == "ternary") or (element.name == "kmeans2" and _serves("kmeans", format))
    if not plain:
        return False
    if rule == "absmean":
        return element.kind in ("ternary", "binary")
    if rule == "sign":
        return element.kind == "binary"
    if rule in ("absmax", "octav"):
        return element.kind == "int" and element.levels > 2
    return rule == "lsq" and (element.kind == "binary" or element.levels > 2)  # int1 is −1 and 0: no range to learn


def _plain(format: Format) -> bool:
    """One level of float scales over codes that are integers of at most 8 bits."""
    fits = format.element.kind in ("int", "ternary", "binary") and format.element.bits <= 8 and not format.has_min
    return fits and format.scale in SIGNED_SCALES and format.second is None and format.recipe is None


def best_step(element: Element) -> float:
    """In root mean squares of the weights."""
    wide = element.step if element.kind != "binary" else 2
    return BEST_STEP.get(element.levels, BEST_STEP[_power(element.levels)]) / wide


def _power(levels: int) -> int:
    return 1 << (levels - 1).bit_length()
