"""A Format: how a stored weight is encoded. A value; everything else is derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from scrimp.errors import UsageError, nearest
from scrimp.formats.catalogue import ELEMENTS, NAMED, Recipe, Rule, element
from scrimp.formats.code import Rounding
from scrimp.formats.element import Element

Block = int | Literal["row", "tensor"]
ScaleType = Literal["f16", "f32", "bf16", "e8m0", "e4m3", "u4", "u6", "i6", "i8"]

GROUPS = (32, 64, 128, 256)
#: Bits of the scale types that can be spelled; integers belong to the formats with two levels of scales.
SCALE_BITS: dict[str, int] = {"f16": 16, "f32": 32, "bf16": 16, "e8m0": 8, "e4m3": 8}
_STORED_BITS = SCALE_BITS | {"u4": 4, "u6": 6, "i6": 6, "i8": 8}
#: Codes of at most so many bits are looked up by the kernels.
TABLE_BITS = 4
#: Scale types with a sign.
SIGNED_SCALES = ("f16", "f32", "bf16")


@dataclass(frozen=True, slots=True)
class Format:
    """An element, the block of inputs that share a scale, and the type of that scale.

    >>> parse("int4z:g32").bits_per_weight(1024, 1024)
    5.0
    """

    element: Element
    block: Block | None  #: inputs per scale along K, "row", "tensor", or None for values as they are
    scale: ScaleType | None  #: None for values as they are
    has_min: bool = False  #: asymmetric: a min of the scale's type beside every scale
    recipe: Recipe | None = None  #: of a block format with a name of its own

    @property
    def name(self) -> str:
        """The spelling used in flags, files and reports; ``parse(f.name) == f``."""
        if self.recipe is not None:
            return self.recipe.name
        if self.block is None:
            return self.element.name
        block = f"g{self.block}" if isinstance(self.block, int) else self.block
        scale = "" if self.scale == "f16" else f"@{self.scale}"
        return f"{self.element.name}{'z' if self.has_min else ''}:{block}{scale}"

    @property
    def rule(self) -> Rule:
        """How scales are chosen unless something else is asked for."""
        if self.recipe is not None:
            return self.recipe.rule
        if self.element.kind in ("ternary", "binary"):
            return "absmean"
        if self.element.tapered:
            return "rms"
        return "mse" if self.element.lopsided and self.element.kind == "int" else "absmax"

    @property
    def rounding(self) -> Rounding:
        """How codes are rounded unless something else is asked for."""
        return "even" if self.recipe is None else self.recipe.rounding

    @property
    def second(self) -> Literal["tensor", "row", "super"] | None:
        """What has a scale of its own, above the blocks': scales of few bits need one to be relative to.

        float32 of a tensor or row; float16, and beside it one for the mins, of a super-block.
        """
        if self.span is not None:
            return "super"
        return "tensor" if self.scale == "e4m3" else "row" if self.scale in ("u4", "u6") else None

    @property
    def span(self) -> int | None:
        """Inputs of a super-block."""
        return None if self.recipe is None else self.recipe.span

    @property
    def runs(self) -> bool:
        """Whether the kernels multiply with it as it is stored; else a model is decoded when it is opened."""
        if self.element.kind == "float":
            return self.element.name != "tf32"
        if self.scale not in (*SIGNED_SCALES, "e8m0") or self.block == 16:
            return False
        if self.element.kind == "table":
            return self.element.bits <= TABLE_BITS
        return self.element.name in ("ternary", "binary", "int2", "int3", "int4", "int5", "int6", "int8")

    def group(self, cols: int) -> int:
        """Inputs per scale in a row of ``cols`` inputs."""
        return self.block if isinstance(self.block, int) else cols

    def groups(self, cols: int) -> int:
        """Scales per row; the last group may be ragged."""
        return -(-cols // self.group(cols)) if self.block is not None else 0

    def supers(self, cols: int) -> int:
        """Super-blocks per row; the last one may be ragged."""
        return -(-cols // self.span) if self.span is not None else 0

    def bits_per_weight(self, rows: int, cols: int) -> float:
        """Stored bits per weight of a matrix whose sides fill whole tiles and vectors; files: ``QTensor.nbytes``.

        Second scales and learned codebooks are counted; a shift per pair is half a bit.
        """
        learned = 32 * self.element.levels / (rows * cols) if self.element.name.startswith("kmeans") else 0.0
        stored = self.element.stored_bits + learned
        if self.scale is None or self.block is None:
            return stored
        scales = 1 if self.block == "tensor" else rows * self.groups(cols)
        both = 1 + self.has_min
        supers = 16 * both * self.supers(cols) / cols
        extra = {"tensor": 32 / (rows * cols), "row": 32 / cols, "super": supers, None: 0.0}[self.second]
        pairs = 0.5 if self.recipe is not None and self.recipe.pairs else 0.0
        return stored + pairs + extra + scales * _STORED_BITS[self.scale] * both / (rows * cols)


def parse(text: str) -> Format:
    """Read ``ELEMENT[:BLOCK][@SCALE]`` or the name of a block format. Scales are ``@f16`` by default.

    Integers and codebooks default to ``:g64``, ternary and binary to ``:row``. Small floats, posits and fixed point
    are values as they are, unless a block is named.

    >>> [parse(t).name for t in ("int4", "ternary@f32", "bf16", "fp8_e4m3:row", "mxfp4")]
    ['int4:g64', 'ternary:row@f32', 'bf16', 'fp8_e4m3:row', 'mxfp4']
    """
    if text in NAMED:
        named = NAMED[text]
        found = element(named.element)
        assert found is not None
        return Format(found, named.block, named.scale, named.has_min, named.recipe)
    body, at, scale = text.partition("@")
    name, colon, block = body.partition(":")
    if name in NAMED:
        raise UsageError(f"'{text}': {name} is complete in itself.", hint=f"write just {name}")
    has_min = element(name) is None and name.endswith("z")
    stored = element(name.removesuffix("z") if has_min else name)
    if stored is None:
        raise UsageError(f"'{text}' is no known format.", hint=_suggest(name))
    if stored.kind == "float" and (colon or at or has_min):
        raise UsageError(f"'{text}': {stored.name} stores values as they are.", hint=f"write just {stored.name}")
    if has_min and (stored.kind != "int" or stored.zero != 2 ** (stored.bits - 1)):
        raise UsageError(f"'{text}': only integers have an asymmetric form.", hint=f"write {stored.name}")
    if not colon and stored.block is None:
        if at:
            raise UsageError(
                f"'{text}': {stored.name} has no scale unless it has a block.", hint=f"write {name}:row@{scale}"
            )
        return Format(stored, None, None)
    spelled = _block(text, block) if colon else stored.block
    return Format(stored, spelled, _scale(text, scale, has_min) if at else "f16", has_min)


def _suggest(name: str) -> str:
    spellings = [*ELEMENTS, *NAMED, *(f"{e.name}z" for e in ELEMENTS.values() if e.kind == "int"), "fixed8.4"]
    return (
        nearest(name, spellings) or f"the elements are {', '.join(sorted(ELEMENTS))}; named formats {', '.join(NAMED)}"
    )


def _block(text: str, spelled: str) -> Block:
    if spelled == "row" or spelled == "tensor":
        return "row" if spelled == "row" else "tensor"
    if not (spelled.startswith("g") and spelled[1:].isdecimal() and spelled.isascii() and len(spelled) < 10):
        raise UsageError(f"'{text}' is no known format: '{spelled}' is no block.", hint="use :g64, :row or :tensor")
    group = int(spelled[1:])
    if group not in GROUPS:
        raise UsageError(
            f"'{text}': groups of {group} are not stored.", hint="use :g32, :g64, :g128, :g256, :row or :tensor"
        )
    return group


def _scale(text: str, spelled: str, has_min: bool) -> ScaleType:
    if spelled not in SCALE_BITS:
        raise UsageError(f"'{text}': '{spelled}' is no scale type.", hint=f"use one of @{', @'.join(SCALE_BITS)}")
    if has_min and spelled not in SIGNED_SCALES:
        raise UsageError(
            f"'{text}': a min needs a sign, which {spelled} has not.", hint=f"use one of @{', @'.join(SIGNED_SCALES)}"
        )
    return cast(ScaleType, spelled)
