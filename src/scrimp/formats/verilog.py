"""One multiply-accumulate unit per pair of formats, as Verilog: what its area is computed from.

``acc <= acc + a · b`` on every clock. Inputs are finite: NaN and infinity cost a few gates that are not modelled.
Accumulators::

    fixed   the exact product and 16 bits: 65,536 of the largest products cannot overflow
    fp32    rounded to nearest even after every addition; subnormal sums become zero
    fp16    the same in binary16
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scrimp.formats.operands import Operand, normalised

Accumulator = Literal["fixed", "fp32", "fp16"]
#: Exponent and fraction bits of the floating accumulators.
FLOATING: dict[str, tuple[int, int]] = {"fp32": (8, 23), "fp16": (5, 10)}
#: Bits above the largest product.
GUARD_BITS = 16


@dataclass(frozen=True, slots=True)
class Unit:
    """A circuit with a name. ``source`` is a Verilog module ``top``."""

    name: str
    accumulator: str  #: "fixed32", "fp32"
    source: str


def mac(a: Operand, b: Operand, accumulator: Accumulator = "fixed", *, lanes: int = 1) -> Unit:
    """A multiply-accumulate unit; ``lanes`` products are added up before they reach a fixed-point accumulator.

    >>> from scrimp.formats.operands import twos_complement
    >>> mac(twos_complement(8), twos_complement(8)).name
    'int8 * int8 -> fixed32'
    """
    times = f"{lanes} x " if lanes > 1 else ""
    if accumulator == "fixed":
        width = fixed_bits(a, b)
        return Unit(f"{times}{a.name} * {b.name} -> fixed{width}", f"fixed{width}", _fixed(a, b, width, lanes))
    assert lanes == 1, "floating accumulators take one product at a time"
    return Unit(f"{a.name} * {b.name} -> {accumulator}", accumulator, _floating(a, b, accumulator))


def fixed_bits(a: Operand, b: Operand) -> int:
    """Bits of the fixed-point accumulator: the exact product with its sign, and the guard."""
    if a.log:
        return (a.top + b.top + 1) + 1 + a.table + 1 + GUARD_BITS
    # Two's complement twice: the product of the two lowest numbers takes a bit more than magnitudes say.
    return a.magnitude_bits + b.magnitude_bits + 1 + (a.twos and b.twos) + GUARD_BITS


def _decoded(x: Operand, port: str, *, floating: bool = False) -> str:
    body = x.flushing if floating else x.body
    assert body is not None
    return "  " + body.replace("X_", f"{port}_").replace("X", port)


def _sign(a: Operand, b: Operand) -> str:
    signs = [f"{port}_sign" for port, x in (("a", a), ("b", b)) if x.sign]
    return " ^ ".join(signs) if signs else "1'b0"


def _fixed(a: Operand, b: Operand, width: int, lanes: int) -> str:
    """Significands multiplied, shifted by the sum of the exponents, added or subtracted."""
    lines = [
        f"module lane(input [{a.bits - 1}:0] a, input [{b.bits - 1}:0] b, output signed [{width - 1}:0] y, output s);"
    ]
    lines += [_decoded(a, "a"), _decoded(b, "b")]
    signed = a.twos or b.twos
    if a.log:
        lines.append(_logarithmic_product(a, b, width))
    else:
        p = a.sig + b.sig
        kind = "signed " if signed else ""
        lines.append(f"  wire {kind}[{p - 1}:0] p = {_product(a, b)};")
        if a.exp or b.exp:
            e = max(a.exp, b.exp) + bool(a.exp and b.exp)
            total = " + ".join(f"{port}_exp" for port, x in (("a", a), ("b", b)) if x.exp)
            spare = a.spare + b.spare
            wide = width + spare
            lines += [f"  wire [{e - 1}:0] e = {total}; wire {kind}[{wide - 1}:0] w = p;",
                      f"  wire {kind}[{wide - 1}:0] moved = w << e; assign y = moved >> {spare};"]  # fmt: skip
        else:
            lines.append("  assign y = p;")
    lines += [f"  assign s = {_sign(a, b)};", "endmodule"]
    flipped = a.sign or b.sign
    ports, terms = [], []
    for i in range(lanes):
        own = ", ".join(f"{port}[{(i + 1) * x.bits - 1}:{i * x.bits}]" for port, x in (("a", a), ("b", b)))
        ports.append(f"  wire signed [{width - 1}:0] y{i}; wire s{i}; lane l{i}({own}, y{i}, s{i});")
        terms.append(f"(s{i} ? -y{i} : y{i})" if flipped else f"y{i}")
    added = "s0 ? acc - y0 : acc + y0" if flipped and lanes == 1 else " + ".join(["acc", *terms])
    lines += [f"module top(input clk, input [{lanes * a.bits - 1}:0] a, input [{lanes * b.bits - 1}:0] b,"
              f" output reg signed [{width - 1}:0] acc);",
              *ports, f"  always @(posedge clk) acc <= {added};", "endmodule"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _product(a: Operand, b: Operand) -> str:
    if 1 in (a.sig, b.sig):  # a product with a bit is a choice
        (bit, _), (other, x) = (("a", a), ("b", b)) if a.sig == 1 else (("b", b), ("a", a))
        return f"{bit}_sig ? {other}_sig : {x.sig}'{'s' if x.twos else ''}d0"
    if a.twos == b.twos:
        return "a_sig * b_sig"
    whole, part = ("a", "b") if a.twos else ("b", "a")
    return f"{whole}_sig * $signed({{1'b0, {part}_sig}})"


def _logarithmic_product(a: Operand, b: Operand, width: int) -> str:
    """Logarithms added; a table turns the fraction of the sum into a significand; the integer part shifts it."""
    assert (a.log, a.exp) == (b.log, b.exp), "logarithms of two kinds are not multiplied"
    f, g = a.log, a.table
    cases = " ".join(f"{i}: t = {round(2 ** (i / 2**f + g))};" for i in range(2**f))
    return (
        f"  wire [{a.exp}:0] l = a_exp + b_exp; wire [{a.exp - f}:0] e = l[{a.exp}:{f}];\n"
        f"  reg [{g}:0] t; always @* case (l[{f - 1}:0]) {cases} endcase\n"
        f"  wire [{g}:0] p = a_sig & b_sig ? t : {g + 1}'d0; wire [{width - 1}:0] w = p; assign y = w << e;"
    )


def _floating(a: Operand, b: Operand, accumulator: str) -> str:
    """Significands with their top bits set multiplied, and added to the accumulator."""
    p, bias = a.sig + b.sig, (1 << (FLOATING[accumulator][0] - 1)) - 1
    xw = max(a.exp, b.exp, FLOATING[accumulator][0]) + 3
    constant = a.unit + b.unit + p - 1 + bias
    body = [
        _decoded(a, "a", floating=True), _decoded(b, "b", floating=True),
        f"  wire [{p - 1}:0] pm = a_sig * b_sig; wire pz = a_zero | b_zero; wire ps = {_sign(a, b)};",
        f"  wire signed [{xw - 1}:0] pe = $signed({{1'b0, a_exp}}) + $signed({{1'b0, b_exp}}) + ({constant});",
    ]  # fmt: skip
    ports = f"input [{a.bits - 1}:0] a, input [{b.bits - 1}:0] b"
    return _module(ports, accumulator, "\n".join(body) + "\n" + float_addition(p, xw, accumulator))


def _module(ports: str, accumulator: str, body: str) -> str:
    e, m = FLOATING[accumulator]
    return f"module top(input clk, {ports}, output reg [{e + m}:0] acc);\n{body}endmodule\n"


def float_addition(p: int, xw: int, accumulator: str) -> str:
    """``acc + pm``, rounded. ``pm``: ``p`` bits of which one of the upper two is set; ``pe`` (signed, ``xw`` bits):
    biased exponent of its top bit; ``ps`` sign; ``pz`` zero."""
    e, m = FLOATING[accumulator]
    w = max(p, m + 2) + 4  # guard, round, sticky, and one for a product without its top bit
    x = max(xw, e + 2) + 1
    d = w.bit_length()
    lines = [
        f"  wire as = acc[{e + m}]; wire az = ~|acc[{e + m - 1}:{m}];",
        f"  wire signed [{x - 1}:0] ae = acc[{e + m - 1}:{m}];",
        f"  wire [{w - 1}:0] aw = az ? {w}'d0 : {{1'b1, acc[{m - 1}:0], {{{w - m - 1}{{1'b0}}}}}};",
        f"  wire [{w - 1}:0] pw = pz ? {w}'d0 : {{pm, {{{w - p}{{1'b0}}}}}};",
        f"  wire signed [{x - 1}:0] gap = ae - pe; wire first = pz | (~az & ~gap[{x - 1}]);  // acc is larger",
        f"  wire [{x - 1}:0] far = gap[{x - 1}] ? -gap : gap; wire [{d - 1}:0] d = far > {w} ? {w} : far;",
        f"  wire [{w - 1}:0] big = first ? aw : pw; wire [{w - 1}:0] small = first ? pw : aw;",
        f"  wire lost = |(small & ~({{{w}{{1'b1}}}} << d)); wire [{w - 1}:0] moved = (small >> d) | lost;",
        f"  wire minus = as ^ ps; wire [{w + 1}:0] sum = minus ? big - moved : big + moved;",
        f"  wire neg = sum[{w + 1}]; wire [{w}:0] found = neg ? -sum : sum;",
        normalised("found", "n", "lz", w + 1),
    ]
    up = f"n[{w - m - 1}] & (n[{w - m}] | (|n[{w - m - 2}:0]))"
    lines += [
        f"  wire [{m + 1}:0] r = n[{w}:{w - m}] + ({up});",
        f"  wire signed [{x - 1}:0] re = (first ? ae : pe) + 1 - $signed({{1'b0, lz}})"
        f" + $signed({{1'b0, r[{m + 1}]}});",
        f"  wire nil = ~n[{w}] | (re < 1); wire inf = re > {2**e - 2}; wire rs = (first ? as : ps) ^ neg;",
        f"  always @(posedge clk) acc <= nil ? {{rs & n[{w}], {e + m}'d0}} : inf ? {{rs, {{{e}{{1'b1}}}}, {m}'d0}}",
        f"    : {{rs, re[{e - 1}:0], r[{m - 1}:0]}};",
    ]
    return "\n".join(lines) + "\n"


def scaling(scale: str, operand: Operand, width: int) -> Unit:
    """What a block adds, once per block: its exact sum of ``width`` bits, times both scales, into an fp32 accumulator.

    Powers of two (e8m0) are an addition of exponents; other scales are multiplied first, to 24 bits as in float32.
    """
    bits, s = operand.bits, operand.sig
    ports = f"input signed [{width - 1}:0] s, input [{bits - 1}:0] a, input [{bits - 1}:0] b"
    scaled = min(2 * s, 24) if s > 1 else 0
    p = width + scaled
    kept = min(p, 27)
    sticky = f" | (|v[{p - kept - 1}:0])" if p > kept else ""
    xw = max(operand.exp, FLOATING["fp32"][0]) + 3
    constant = 2 * operand.unit + (2 * s - scaled if scaled else 0) + p - 1 + 127
    applied = f"m * k[{2 * s - 1}:{2 * s - scaled}]" if scaled else "m"
    lines = [
        _decoded(operand, "a", floating=True), _decoded(operand, "b", floating=True),
        f"  wire ps = s[{width - 1}] ^ {_sign(operand, operand)}; wire [{width - 1}:0] m = s[{width - 1}] ? -s : s;",
        f"  wire [{2 * s - 1}:0] k = a_sig * b_sig; wire [{p - 1}:0] x = {applied};",
        normalised("x", "v", "lead", p),
        f"  wire pz = a_zero | b_zero | ~|s; wire [{kept - 1}:0] pm = v[{p - 1}:{p - kept}]{sticky};",
        f"  wire signed [{xw - 1}:0] pe = $signed({{1'b0, a_exp}}) + $signed({{1'b0, b_exp}})"
        f" - $signed({{1'b0, lead}}) + ({constant});",
    ]  # fmt: skip
    body = "\n".join(lines) + "\n" + float_addition(kept, xw, "fp32")
    return Unit(f"scale {operand.name} * fixed{width} -> fp32", "fp32", _module(ports, "fp32", body))


def integer_scaling(bits: int, width: int) -> Unit:
    """Integer scales per block (VS-Quant): the block's sum times both of them, into a fixed-point accumulator."""
    total = width + 2 * bits
    ports = f"input clk, input signed [{width - 1}:0] s, input [{bits - 1}:0] a, input [{bits - 1}:0] b"
    source = (
        f"module top({ports}, output reg signed [{total - 1}:0] acc);\n"
        f"  wire [{2 * bits - 1}:0] k = a * b;\n"
        f"  always @(posedge clk) acc <= acc + s * $signed({{1'b0, k}});\nendmodule\n"
    )
    return Unit(f"scale u{bits} * fixed{width} -> fixed{total}", f"fixed{total}", source)
