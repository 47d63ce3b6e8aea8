"""What one code means before its scale: the elements, one instance each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["float", "int", "ternary", "binary"]

#: Inputs that one 64-byte vector of a plane holds per row, by the bits of the plane's field; trits have their own.
TRIT_SPAN = 20


@dataclass(frozen=True, slots=True)
class Element:
    """How one weight is coded.

    ``value = scale * (step * code - zero)``, or ``scale * code + min`` when the format stores mins.
    Floats are their own value and have no scale.
    """

    name: str  #: "int4", "ternary", "f16": as it is spelled in a format's name
    kind: Kind
    bits: int  #: width of a code as the arithmetic sees it (2 for a trit)
    planes: tuple[int, ...]  #: field widths the code is split into, lowest bits first; (0,) stands for packed trits
    levels: int  #: number of codes in use
    step: int = 1
    zero: int = 0

    @property
    def stored_bits(self) -> float:
        """Bits per weight of the code planes alone: 1.6 for trits, 3 for int3."""
        return 1.6 if self.kind == "ternary" else float(sum(self.planes))

    def spans(self) -> tuple[int, ...]:
        """Inputs per 64-byte vector of each plane: 32/p; 20 for trits; 1 for f32 and 2 for 16-bit floats."""
        return tuple(TRIT_SPAN if p == 0 else 32 // p for p in self.planes)


def _int(bits: int) -> Element:
    planes = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}[bits]
    return Element(f"int{bits}", "int", bits, planes, 2**bits, zero=2 ** (bits - 1))


ELEMENTS: dict[str, Element] = {
    e.name: e
    for e in (
        Element("f32", "float", 32, (32,), 2**32),
        Element("f16", "float", 16, (16,), 2**16),
        Element("bf16", "float", 16, (16,), 2**16),
        *(_int(bits) for bits in (2, 3, 4, 5, 6, 8)),
        Element("ternary", "ternary", 2, (0,), 3, zero=1),
        Element("binary", "binary", 1, (1,), 2, step=2, zero=1),
    )
}
