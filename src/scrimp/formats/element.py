"""What one code means before its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scrimp.formats.code import Code
from scrimp.formats.codebooks import Codebook, Learned
from scrimp.formats.floats import Exponent, Float
from scrimp.formats.integers import Fixed, Integer
from scrimp.formats.logs import Log
from scrimp.formats.posits import Posit

Kind = Literal["float", "int", "ternary", "binary", "table"]
Spec = Float | Exponent | Integer | Fixed | Posit | Log | Codebook | Learned

#: Inputs that one 64-byte vector of a plane holds per row, by the bits of the plane's field; trits have their own.
TRIT_SPAN = 20


@dataclass(frozen=True, slots=True)
class Element:
    """How one weight is coded. ``spec`` defines the numbers; everything else says how they are stored and decoded::

    int, ternary, binary   value = scale * (step * code - zero), or scale * code + min when the format stores mins
    table                  value = scale * code().values[code], or without the scale where a format has none
    float                  its own value (f32, tf32, f16, bf16), never with a scale
    """

    name: str  #: "int4", "ternary", "f16": as it is spelled in a format's name
    kind: Kind
    bits: int  #: width of a code as the arithmetic sees it (2 for a trit)
    planes: tuple[int, ...]  #: field widths the code is split into, lowest bits first; (0,) stands for packed trits
    levels: int  #: number of codes in use
    step: int = 1
    zero: int = 0
    spec: Spec | None = None
    lopsided: bool = False  #: one side of zero reaches farther, so the sign of a scale matters
    block: int | Literal["row"] | None = None  #: what a format without a spelled block takes; None: no scale
    about: str = ""  #: one line for people

    @property
    def stored_bits(self) -> float:
        """Bits per weight of the code planes alone: 1.6 for packed trits, 3 for int3."""
        return 1.6 if self.planes == (0,) else float(sum(self.planes))

    def spans(self) -> tuple[int, ...]:
        """Inputs per 64-byte vector of each plane: 32/p; 20 for trits; 1 for f32 and 2 for 16-bit floats."""
        return tuple(TRIT_SPAN if p == 0 else 32 // p for p in self.planes)

    def code(self) -> Code:
        """The numbers and how others are rounded to them. f32 and tf32 have too many: only :func:`spec` names them."""
        assert self.spec is not None
        assert self.bits <= 16, f"{self.name} has too many numbers for a table"
        return self.spec.code()

    def reach(self, *, signed: bool) -> float:
        """The level that the largest magnitude of a block is mapped to.

        Of a lopsided code (quaternary's -1 … 2, IQ4_NL's -127 … 113) the longer side where scales are ``signed``, so
        that it goes to the side of the block that is longer; else the shorter one, which clips nothing.
        """
        if self.kind == "table":
            low, high = self.code().smallest, self.code().largest
        else:
            low, high = float(-self.zero), float(self.step * (self.levels - 1) - self.zero)
        if not self.lopsided:
            return high
        if signed:
            return high if high >= -low else low
        return min(high, -low) or max(high, -low)

    @property
    def tapered(self) -> bool:
        """Finest near 1 and coarser both ways, so that a block's typical magnitude, not its largest, belongs at 1."""
        return isinstance(self.spec, Posit)

    def tabulated(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The number of every code as float32, which is what decoding multiplies."""
        code = self.code()
        if "f32" not in code.cache:
            code.cache["f32"] = code.values.astype(np.float32)
        found: np.ndarray[tuple[int], np.dtype[np.float32]] = code.cache["f32"]
        return found


def planes_of(bits: int) -> tuple[int, ...]:
    """A width as fields of 8, 4, 2 and 1 bits, widest (and lowest) first: 7 is 4 + 2 + 1, 16 is 8 + 8.

    >>> planes_of(3), planes_of(6), planes_of(16)
    ((2, 1), (4, 2), (8, 8))
    """
    return (8,) * (bits // 8) + tuple(p for p in (4, 2, 1) if bits % 8 & p)
