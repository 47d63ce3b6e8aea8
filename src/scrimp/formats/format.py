"""A Format: how a stored weight is encoded. A value; everything else is derived from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from scrimp.errors import UsageError, nearest
from scrimp.formats.element import ELEMENTS, Element

Block = int | Literal["row", "tensor"]
ScaleType = Literal["f16", "f32", "bf16"]

GROUPS = (32, 64, 128, 256)
SCALE_BITS: dict[str, int] = {"f16": 16, "f32": 32, "bf16": 16}


@dataclass(frozen=True, slots=True)
class Format:
    """An element, the block of inputs that share a scale, and the type of that scale.

    >>> parse("int4z:g32").bits_per_weight(1024, 1024)
    5.0
    """

    element: Element
    block: Block | None  #: inputs per scale along K, "row", "tensor", or None for bare floats
    scale: ScaleType | None  #: None for bare floats
    has_min: bool = False  #: asymmetric: a min of the scale's type beside every scale

    @property
    def name(self) -> str:
        """The spelling used in flags, files and reports; ``parse(f.name) == f``."""
        if self.block is None:
            return self.element.name
        block = f"g{self.block}" if isinstance(self.block, int) else self.block
        scale = "" if self.scale == "f16" else f"@{self.scale}"
        return f"{self.element.name}{'z' if self.has_min else ''}:{block}{scale}"

    def group(self, cols: int) -> int:
        """Inputs per scale in a row of ``cols`` inputs."""
        return self.block if isinstance(self.block, int) else cols

    def groups(self, cols: int) -> int:
        """Scales per row; the last group may be ragged."""
        return -(-cols // self.group(cols)) if self.block is not None else 0

    def bits_per_weight(self, rows: int, cols: int) -> float:
        """Stored bits per weight of a matrix whose sides fill whole tiles and vectors. What a file takes: ``QTensor.nbytes``."""
        if self.scale is None or self.block is None:
            return self.element.stored_bits
        scales = 1 if self.block == "tensor" else rows * self.groups(cols)
        return self.element.stored_bits + scales * SCALE_BITS[self.scale] * (1 + self.has_min) / (rows * cols)


_SPELLING = re.compile(r"(?P<element>[a-z]+?\d*)(?P<z>z?)(?::(?P<block>g\d+|row|tensor))?(?:@(?P<scale>[a-z0-9]+))?")


def parse(text: str) -> Format:
    """Read ``ELEMENT[:BLOCK][@SCALE]``. Integers default to ``:g64``, ternary and binary to ``:row``, scales to ``@f16``.

    >>> parse("int4").name, parse("ternary@f32").name, parse("bf16").name
    ('int4:g64', 'ternary:row@f32', 'bf16')
    """
    match = _SPELLING.fullmatch(text)
    element = ELEMENTS.get(match["element"]) if match else None
    if match is None or element is None:
        spellings = sorted(ELEMENTS) + [f"{name}z" for name in sorted(ELEMENTS) if name.startswith("int")]
        hint = nearest(text.split(":")[0].split("@")[0], spellings) or f"the elements are {', '.join(sorted(ELEMENTS))}"
        raise UsageError(f"'{text}' is no known format.", hint=hint)
    if element.kind == "float":
        if match["block"] or match["scale"] or match["z"]:
            raise UsageError(f"'{text}': {element.name} stores values as they are.", hint=f"write just {element.name}")
        return Format(element, None, None)
    if match["z"] and element.kind != "int":
        raise UsageError(f"'{text}': only integers have an asymmetric form.", hint=f"write {element.name}")
    return Format(element, _block(text, match["block"], element), _scale(text, match["scale"]), bool(match["z"]))


def _block(text: str, spelled: str | None, element: Element) -> Block:
    if spelled is None:
        return 64 if element.kind == "int" else "row"
    if spelled in ("row", "tensor"):
        return "row" if spelled == "row" else "tensor"
    group = int(spelled[1:])
    if group not in GROUPS:
        raise UsageError(f"'{text}': groups of {group} are not stored.", hint="use :g32, :g64, :g128, :g256, :row or :tensor")
    return group


def _scale(text: str, spelled: str | None) -> ScaleType:
    if spelled is None or spelled == "f16":
        return "f16"
    if spelled == "f32":
        return "f32"
    if spelled == "bf16":
        return "bf16"
    raise UsageError(f"'{text}': '{spelled}' is no scale type.", hint=f"use one of @{', @'.join(SCALE_BITS)}")
