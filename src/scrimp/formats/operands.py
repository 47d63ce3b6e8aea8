"""How hardware takes a stored code apart: sign, significand and exponent, as a few lines of Verilog.

Every number is ``±significand · 2^exponent`` up to a constant factor, so that a product is one small multiplication and
one small addition. Logarithms have no significand: theirs is looked up after the exponents are added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scrimp.formats.codebooks import Codebook, Learned
from scrimp.formats.element import Element
from scrimp.formats.floats import Exponent, Float
from scrimp.formats.integers import Fixed, Integer
from scrimp.formats.logs import Log
from scrimp.formats.posits import Posit

#: Fraction bits that a logarithm's table gives: Johnson's α = 5 for ELMA; else the format's own and three more.
ELMA_TABLE_BITS = 5
#: Smaller floats have their subnormal numbers normalised before a floating-point addition; wider ones flush them to
#: zero, as accelerators for training do.
NORMALISED_BITS = 8


@dataclass(frozen=True, slots=True)
class Operand:
    """One side of a multiplier.

    ``body`` is Verilog in which ``X`` is the port: it declares ``X_sig`` and, where the widths below are not 0,
    ``X_sign`` and ``X_exp``.
    """

    name: str
    bits: int  #: of the port
    sig: int  #: width of the significand; of a two's complement number with its sign
    body: str
    twos: bool = False  #: the significand is a two's complement number
    sign: bool = True  #: there is a sign beside the significand
    exp: int = 0  #: width of the exponent
    top: int = 0  #: largest exponent
    spare: int = 0  #: low bits of a significand at exponent 0 that are always zero
    log: int = 0  #: fraction bits of the exponent: the significand is 0 or 1 and a table gives the rest
    table: int = 0  #: fraction bits of that table
    flushing: str | None = None  #: the body for floating-point addition: significand with its top bit set, ``X_zero``
    unit: int = 0  #: binary logarithm of a significand of 1 at exponent 0, for that body
    entries: int = 0  #: numbers of a codebook, read one per code

    @property
    def unpublished(self) -> bool:
        """No table of energies has its multiplication: posits and logarithms."""
        return self.log > 0 or self.spare > 0

    @property
    def magnitude_bits(self) -> int:
        """Bits of the largest magnitude in units of the smallest."""
        return self.sig - self.twos + self.top - self.spare


def twos_complement(bits: int) -> Operand:
    return Operand(f"int{bits}", bits, bits, f"wire signed [{bits - 1}:0] X_sig = X;", twos=True, sign=False)


def unsigned(bits: int) -> Operand:
    return Operand(f"uint{bits}", bits, bits, f"wire [{bits - 1}:0] X_sig = X;", sign=False)


def sign_magnitude(bits: int, *, shifted: bool = False) -> Operand:
    """A sign and ``bits - 1`` bits; ``shifted``: and the one-bit exponent of its pair (shared micro-exponents)."""
    m = bits - 1
    body = f"wire [{m - 1}:0] X_sig = X[{m - 1}:0]; wire X_sign = X[{m}];"
    if not shifted:
        return Operand(f"sm{bits}", bits, m, body)
    return Operand(f"sm{bits}s", bits + 1, m, f"{body} wire [0:0] X_exp = X[{bits}];", exp=1, top=1)


#: Add, subtract or skip.
TERNARY = Operand("ternary", 2, 1, "wire [0:0] X_sig = X[0]; wire X_sign = X[1];")
BINARY = Operand("binary", 1, 1, "wire [0:0] X_sig = 1'b1; wire X_sign = X[0];")
QUATERNARY = Operand("quaternary", 2, 3, "wire signed [2:0] X_sig = $signed({1'b0, X}) - 3'sd1;", twos=True, sign=False)


def floating(exponent: int, fraction: int) -> Operand:
    """Sign, exponent, fraction; the exponent of subnormal numbers is that of the smallest normal ones."""
    e, m, bits = exponent, fraction, 1 + exponent + fraction
    parts = (
        f"wire [{e - 1}:0] X_e = X[{bits - 2}:{m}]; wire [{m - 1}:0] X_f = X[{m - 1}:0]; wire X_sign = X[{bits - 1}];"
    )
    exact = f"{parts} wire [{m}:0] X_sig = {{|X_e, X_f}}; wire [{e - 1}:0] X_exp = X_e - (|X_e);"
    bias = (1 << (e - 1)) - 1
    if bits > NORMALISED_BITS:
        flushing = f"{parts} wire X_zero = ~|X_e; wire [{m}:0] X_sig = {{1'b1, X_f}}; wire [{e - 1}:0] X_exp = X_e;"
        unit = -bias - m
    else:
        flushing = f"{parts} wire X_zero = ~|X[{bits - 2}:0];\n" + _normalised(e, m)
        unit = 1 - bias - m - m
    return Operand(f"e{e}m{m}", bits, m + 1, exact, exp=e, top=2**e - 2, flushing=flushing, unit=unit)


def _normalised(e: int, m: int) -> str:
    """Shift a subnormal significand up until its top bit is set; exponents count from the smallest subnormal's."""
    shift = "".join(f"X_f[{m - s}] ? {s} : " for s in range(1, m)) + str(m)
    return (
        f"  wire [{m}:0] X_raw = {{|X_e, X_f}}; wire [{m.bit_length() - 1}:0] X_lz = |X_e ? 0 : {shift};\n"
        f"  wire [{m}:0] X_sig = X_raw << X_lz; wire [{e}:0] X_exp = X_e - (|X_e) + {m} - X_lz;"
    )


def normalised(value: str, shifted: str, zeros: str, bits: int) -> str:
    """Verilog that counts the leading ``zeros`` of ``value`` and shifts them out: a step per bit of the count."""
    steps = [1 << k for k in reversed(range((bits - 1).bit_length()))]
    lines, x = [], value
    for s in steps:
        y = f"{shifted}_{s}"
        lines += [f"  wire {zeros}_{s} = ~|{x}[{bits - 1}:{bits - s}];",
                  f"  wire [{bits - 1}:0] {y} = {zeros}_{s} ? {x} << {s} : {x};"]  # fmt: skip
        x = y
    count = ", ".join(f"{zeros}_{s}" for s in steps)
    lines += [f"  wire [{len(steps) - 1}:0] {zeros} = {{{count}}};", f"  wire [{bits - 1}:0] {shifted} = {x};"]
    return "\n".join(lines)


def power_of_two(bits: int) -> Operand:
    """An exponent and nothing else (E8M0)."""
    body = f"wire [0:0] X_sig = 1'b1; wire [{bits - 1}:0] X_exp = X;"
    flushing = f"{body} wire X_zero = 1'b0;"
    return Operand(
        f"e{bits}m0",
        bits,
        1,
        body,
        sign=False,
        exp=bits,
        top=2**bits - 2,
        flushing=flushing,
        unit=1 - (1 << (bits - 1)),
    )


def posit(bits: int, es: int, *, logarithmic: bool = False) -> Operand:
    """Two's complement to magnitude, count the regime's run, shift it out; exponents count from the smallest's."""
    n, body_bits = bits, bits - 1
    fraction = max(0, n - 3 - es)
    top = 2 * (n - 2) << es
    exp = top.bit_length()
    width = max(body_bits, 2 + es + fraction)
    pad = width - body_bits
    lines = [
        f"wire X_sign = X[{n - 1}]; wire X_zero = ~|X;",
        f"wire [{n - 2}:0] X_m = X_sign ? -X[{n - 2}:0] : X[{n - 2}:0];",
        f"wire X_r = X_m[{n - 2}]; wire [{n - 2}:0] X_x = X_m ^ {{{n - 1}{{X_r}}}};",
    ]
    lines += [
        normalised("X_x", "X_n", "X_run", body_bits),  # the leading zeros of X_x are the run
        f"wire [{n - 2}:0] X_rest = (X_m << X_run) << 1;",  # the run and the bit that ends it are gone
        f"wire [{width - 1}:0] X_tail = {{X_rest, {{{pad}{{1'b0}}}}}};"
        if pad
        else f"wire [{width - 1}:0] X_tail = X_rest;",
    ]
    regime = f"(X_r ? {n - 3} + X_run : {n - 2} - X_run)"
    e = f" + X_tail[{width - 1}:{width - es}]" if es else ""
    lines.append(f"wire [{exp - 1}:0] X_int = ({regime} << {es}){e};")
    head = f"X_tail[{width - 1 - es}:{width - es - fraction}]" if fraction else ""
    if logarithmic:
        lines.append(f"wire [0:0] X_sig = ~X_zero; wire [{exp + fraction - 1}:0] X_exp = {{X_int, {head}}};")
        return Operand(
            f"logposit{n}_{es}",
            n,
            1,
            "\n  ".join(lines),
            exp=exp + fraction,
            top=top,
            log=fraction,
            table=ELMA_TABLE_BITS,
        )
    sig = f"wire [{fraction}:0] X_sig = {{%s{', ' + head if head else ''}}};"
    exact = [*lines, sig % "~X_zero" + f" wire [{exp - 1}:0] X_exp = X_int;"]
    flushing = [*lines, sig % "1'b1" + f" wire [{exp - 1}:0] X_exp = X_int;"]
    return Operand(f"posit{n}_{es}", n, fraction + 1, "\n  ".join(exact), exp=exp, top=top, spare=fraction,
                   flushing="\n  ".join(flushing), unit=-((n - 2) << es) - fraction)  # fmt: skip


def logarithm(bits: int, fraction: int) -> Operand:
    c = bits - 1
    body = f"wire X_sign = X[{c}]; wire [0:0] X_sig = |X[{c - 1}:0]; wire [{c - 1}:0] X_exp = X[{c - 1}:0];"
    return Operand(
        f"log{bits}.{fraction}", bits, 1, body, exp=c, top=(1 << (c - fraction)) - 1, log=fraction, table=fraction + 3
    )


def codebook(name: str, levels: tuple[float, ...]) -> Operand:
    """A fixed table from code to int8: its levels in steps of the largest magnitude over 127."""
    steps = np.rint(np.array(levels) * 127 / np.max(np.abs(levels))).astype(int)
    bits = (len(levels) - 1).bit_length()
    cases = " ".join(f"{i}: X_sig = {'-' if v < 0 else ''}8'sd{abs(v)};" for i, v in enumerate(steps))
    body = f"reg signed [7:0] X_sig; always @* case (X) {cases} endcase"
    return Operand(name, bits, 8, body, twos=True, sign=False, entries=len(levels))


def learned(bits: int) -> Operand:
    """A table that can be written: its entries come in through the port, shared by many multipliers; one is picked."""
    width = bits + 8 * 2**bits
    body = f"wire signed [7:0] X_sig = X[{bits} + 8 * X[{bits - 1}:0] +: 8];"
    return Operand(f"lut{bits}", width, 8, body, twos=True, sign=False, entries=2**bits)


def operand(element: Element, *, pairs: bool = False) -> Operand:
    """The hardware's view of an element; ``pairs``: its shift of one bit per pair of weights is part of it."""
    match element.spec:
        case Float(exponent=e, fraction=m):
            return floating(e, m)
        case Exponent(bits=bits):
            return power_of_two(bits)
        case Posit(bits=bits, es=es, logarithmic=logarithmic):
            return posit(bits, es, logarithmic=logarithmic)
        case Log(bits=bits, fraction=fraction):
            return logarithm(bits, fraction)
        case Fixed(bits=bits, kind="magnitude"):
            return sign_magnitude(bits, shifted=pairs)
        case Fixed(bits=bits):
            return twos_complement(bits)
        case Codebook(levels=levels):
            return codebook(element.name, levels)
        case Learned(bits=bits):
            return learned(bits)
        case Integer(bits=bits, zero=zero):
            special = {"ternary": TERNARY, "ternary2": TERNARY, "binary": BINARY, "quaternary": QUATERNARY}
            return special.get(element.name) or (twos_complement(bits) if zero else unsigned(bits))
    raise AssertionError(f"{element.name} has no hardware description")
