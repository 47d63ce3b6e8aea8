"""The one table of everything a weight can be stored as: elements, and the block formats with names of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from scrimp.formats.code import Rounding
from scrimp.formats.codebooks import AF4, IQ4_NL, NF4, Codebook, Learned
from scrimp.formats.element import Element, Spec, planes_of
from scrimp.formats.floats import Exponent, Float, Specials, p3109
from scrimp.formats.integers import Fixed, Integer
from scrimp.formats.logs import Log
from scrimp.formats.posits import Posit

#: How the scale of a block is chosen (scales.py says it in formulas).
Rule = Literal["absmax", "nearest", "absmean", "twn", "rms", "mse", "octav", "percentile",
               "floor", "ceil", "rceil", "even", "four_over_six", "gguf", "super"]  # fmt: skip


def _float(name: str, bits: int, spec: Float, about: str) -> Element:
    return Element(name, "float", bits, (bits if bits == 16 else 32,), 2**bits, spec=spec, about=about)


def _table(name: str, spec: Spec, about: str, *, block: int | None = None, lopsided: bool = False) -> Element:
    bits = spec.bits
    return Element(
        name, "table", bits, planes_of(bits), 2**bits, spec=spec, block=block, lopsided=lopsided, about=about
    )


def _small(
    name: str, exponent: int, fraction: int, bias: int, specials: Specials, about: str, *, saturate: bool = True
) -> Element:
    return _table(name, Float(exponent, fraction, bias, specials, saturate), about)


def _integer(name: str, spec: Integer, about: str, *, lopsided: bool = False) -> Element:
    return Element(
        name, "int", spec.bits, planes_of(spec.bits), spec.count, spec.step, spec.zero, spec, lopsided, 64, about
    )


def _int(bits: int) -> Element:
    half = 2 ** (bits - 1)
    return _integer(
        f"int{bits}", Integer(bits, 2 * half, half), f"two's complement, {-half} … {half - 1}", lopsided=bits == 1
    )


def _restricted(bits: int) -> Element:
    half = 2 ** (bits - 1) - 1
    return _integer(f"int{bits}r", Integer(bits, 2 * half + 1, half), f"restricted integers, {-half} … {half}")


ELEMENTS: dict[str, Element] = {
    e.name: e
    for e in (
        _float("f32", 32, Float(8, 23, 127, "ieee", False), "IEEE binary32"),
        _float("tf32", 19, Float(8, 10, 127, "ieee", False), "19 bits, kept in 32: f32 with 13 bits rounded away"),
        _float("f16", 16, Float(5, 10, 15, "ieee", False), "IEEE binary16"),
        _float("bf16", 16, Float(8, 7, 127, "ieee", False), "the upper half of f32"),
        _small("fp8_e4m3", 4, 3, 7, "fn", "OCP, ±448, saturating, one NaN"),
        _small("fp8_e5m2", 5, 2, 15, "ieee", "OCP, ±57344, saturating"),
        _small("fp8_e3m4", 3, 4, 3, "ieee", "±15.5, saturating"),
        _small("fp6_e2m3", 2, 3, 1, "none", "OCP, ±7.5, saturating, no NaN"),
        _small("fp6_e3m2", 3, 2, 3, "none", "OCP, ±28, saturating, no NaN"),
        _small("fp4_e2m1", 2, 1, 1, "none", "OCP: 0, ½, 1, 1½, 2, 3, 4, 6 and their negatives"),
        _small("fp8_e4m3_ieee", 4, 3, 7, "ieee", "±240, overflows to infinity", saturate=False),
        _small("fp8_e5m2_ieee", 5, 2, 15, "ieee", "±57344, overflows to infinity", saturate=False),
        _small("fp8_e3m4_ieee", 3, 4, 3, "ieee", "±15.5, overflows to infinity", saturate=False),
        _small("fp8_e4m3_fnuz", 4, 3, 8, "fnuz", "±240, saturating; one zero, one NaN, infinity becomes NaN"),
        _small("fp8_e5m2_fnuz", 5, 2, 16, "fnuz", "±57344, saturating; one zero, one NaN, infinity becomes NaN"),
        _small("fp8_e4m3b11_fnuz", 4, 3, 11, "fnuz", "±30, saturating; one zero, one NaN, infinity becomes NaN"),
        *(_table(f"k8p{p}s{'e' if extended else 'f'}", p3109(8, p, extended=extended),
                 f"IEEE P3109 (draft), 8 bits, precision {p}, {'overflows to infinity' if extended else 'saturating'}")
          for p in (3, 4, 5) for extended in (True, False)),
        _table("e8m0", Exponent(), "OCP's scale: powers of two 2^-127 … 2^127, one NaN; no zero, no sign"),
        *(_int(bits) for bits in (1, 2, 3, 4, 5, 6, 7, 8, 16)),
        *(_restricted(bits) for bits in (2, 3, 4, 5, 6, 7, 8)),
        *(_integer(f"uint{bits}", Integer(bits, 2**bits, 0), f"0 … {2**bits - 1}, for what is never negative")
          for bits in (4, 8)),
        _integer("quaternary", Integer(2, 4, 1), "-1, 0, 1, 2, with a signed scale", lopsided=True),
        Element("ternary", "ternary", 2, (0,), 3, 1, 1, Integer(2, 3, 1), block="row", about="-1, 0, 1 (5 per byte)"),
        Element("ternary2", "ternary", 2, (2,), 3, 1, 1, Integer(2, 3, 1), block="row", about="-1, 0, 1 (2 bits)"),
        Element("binary", "binary", 1, (1,), 2, 2, 1, Integer(1, 2, 1, 2), block="row", about="-1, 1"),
        _table("nf4", Codebook(4, NF4), "normal quantiles with an exact zero (QLoRA)", block=64),
        _table("af4", Codebook(4, AF4), "least absolute error for normal blocks of 64", block=64),
        _table("iq4nl", Codebook(4, IQ4_NL), "llama.cpp's IQ4_NL levels", block=64, lopsided=True),
        *(_table(f"kmeans{b}", Learned(b), f"{2**b} levels learned from each tensor", block=64) for b in (2, 3, 4)),
        *(_table(f"posit{n}_{es}", Posit(n, es), f"posit, {es} exponent bits")
          for n, es in ((8, 0), (8, 1), (8, 2), (16, 1), (16, 2))),
        _table("lns8", Log(8, 4), "logarithms with 4 fraction bits, 4.4 % apart", block=64),
        _table("elma8", Posit(8, 1, True), "tapered logarithms (Johnson's 8-bit ELMA)"),
    )
}  # fmt: skip

_FIXED = re.compile(r"(fixed|sm)(\d{1,2})\.(\d{1,2})")


def element(name: str) -> Element | None:
    """An element by name; ``fixedN.F`` and ``smN.F`` (sign and magnitude) for every width N and fraction F."""
    found = ELEMENTS.get(name)
    match = _FIXED.fullmatch(name)
    if found is None and match is not None:
        kind, bits, fraction = match[1], int(match[2]), int(match[3])
        if 2 <= bits <= 16 and fraction <= 30:
            spec = Fixed(bits, fraction, "twos" if kind == "fixed" else "magnitude")
            return _table(name, spec, f"fixed point, steps of 2^-{fraction}")
    return found


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a block format with a name of its own adds to element, block and scale."""

    name: str
    rule: Rule  #: how it defines its scales
    rounding: Rounding = "even"
    pairs: bool = False  #: a shift of one bit per pair of weights (shared micro-exponents)
    headroom: float = 448.0  #: largest block scale before the tensor's own, where that is e4m3
    span: int | None = None  #: inputs of a super-block, whose float16 scale the blocks' are integers of


@dataclass(frozen=True, slots=True)
class Named:
    """A row of the table below."""

    element: str
    block: int | Literal["tensor"]
    scale: Literal["f16", "e8m0", "e4m3", "u4", "u6", "i6", "i8"]
    recipe: Recipe
    has_min: bool = False
    about: str = ""


_K_QUANTS: tuple[tuple[int, int, Literal["u4", "u6", "i6", "i8"], bool], ...] = (
    (2, 16, "u4", True), (3, 16, "i6", False), (4, 32, "u6", True), (5, 32, "u6", True), (6, 16, "i8", False),
)  # fmt: skip

NAMED: dict[str, Named] = {
    n.recipe.name: n
    for n in (
        *(Named(kind.replace("mx", ""), 32, "e8m0", Recipe(kind, "floor"), about="OCP microscaling")
          for kind in ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2")),
        Named("fp4_e2m1", 32, "e8m0", Recipe("mxfp4", "floor"), about="OCP microscaling"),
        Named("fixed8.6", 32, "e8m0", Recipe("mxint8", "floor"), about="OCP microscaling"),
        Named("fp4_e2m1", 16, "e4m3", Recipe("nvfp4", "nearest"), about="NVIDIA: e4m3 scale per 16, f32 per tensor"),
        Named("fp4_e2m1", 16, "e4m3", Recipe("nvfp4_46", "four_over_six", headroom=256.0),
              about="nvfp4; each block maps its largest to 6 or to 4, whichever errs less"),
        Named("sm4.2", 16, "e8m0", Recipe("msfp12", "floor", "zero"), about="Microsoft's block floating point"),
        Named("sm8.6", 16, "e8m0", Recipe("msfp16", "floor", "zero"), about="Microsoft's block floating point"),
        Named("sm3.1", 16, "e8m0", Recipe("smx4", "floor", pairs=True), about="shared micro-exponents, BDR's MX4"),
        Named("sm5.3", 16, "e8m0", Recipe("smx6", "floor", pairs=True), about="shared micro-exponents, BDR's MX6"),
        Named("sm8.6", 16, "e8m0", Recipe("smx9", "floor", pairs=True), about="shared micro-exponents, BDR's MX9"),
        Named("int4r", 16, "u4", Recipe("vsq4", "nearest"), about="VS-Quant: integer scales per 16, f32 per row"),
        Named("int6r", 16, "u6", Recipe("vsq6", "nearest"), about="VS-Quant: integer scales per 16, f32 per row"),
        Named("int16", "tensor", "e8m0", Recipe("flex16", "absmax"), about="Flexpoint: one exponent per tensor"),
        Named("int4", 32, "f16", Recipe("q4_0", "gguf"), about="llama.cpp"),
        Named("int4", 32, "f16", Recipe("q4_1", "gguf"), has_min=True, about="llama.cpp"),
        Named("int5", 32, "f16", Recipe("q5_0", "gguf"), about="llama.cpp"),
        Named("int5", 32, "f16", Recipe("q5_1", "gguf"), has_min=True, about="llama.cpp"),
        Named("int8", 32, "f16", Recipe("q8_0", "gguf"), about="llama.cpp"),
        Named("ternary", 256, "f16", Recipe("tq1_0", "gguf"), about="llama.cpp's values, 5 trits per byte"),
        Named("ternary2", 256, "f16", Recipe("tq2_0", "gguf"), about="llama.cpp"),
        *(Named(f"int{bits}", block, scale, Recipe(f"q{bits}_k", "super", span=256), has_min, "llama.cpp's K-quant")
          for bits, block, scale, has_min in _K_QUANTS),
    )
}  # fmt: skip
