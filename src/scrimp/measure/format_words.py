"""A format in words: what its codes mean, and which bit is what."""

from __future__ import annotations

from scrimp.formats import Format
from scrimp.formats.codebooks import Codebook, Learned
from scrimp.formats.element import Element
from scrimp.formats.floats import Exponent, Float
from scrimp.formats.integers import Fixed, Integer
from scrimp.formats.logs import Log
from scrimp.formats.posits import Posit

_SPECIALS = {
    "ieee": "infinities and NaNs in the top exponent",
    "fn": "no infinity, only all ones is NaN",
    "none": "every code is a number",
    "fnuz": "no infinity, one zero, its negative is NaN",
    "extended": "infinities, one zero, its negative is NaN",
    "finite": "no infinity, one zero, its negative is NaN",
}
_SCALES = {
    "f16": "a float16 scale", "f32": "a float32 scale", "bf16": "a bfloat16 scale", "e8m0": "a power of two (8 bits)",
    "e4m3": "an fp8_e4m3 scale", "u4": "an integer scale of 4 bits", "u6": "an integer scale of 6 bits",
    "i6": "a signed integer scale of 6 bits", "i8": "a signed integer scale of 8 bits",
}  # fmt: skip
_SECOND = {
    "tensor": ", times one float32 for the tensor", "row": ", times one float32 per row",
    "super": ", times one float16 per super-block of",
}  # fmt: skip


def definition(format: Format) -> str:
    """What a stored value means, in a sentence or two.

    >>> from scrimp.formats import parse
    >>> definition(parse("int4:g64"))
    'Integers -8 … 7. A float16 scale per 64 inputs.'
    """
    element = f"Codes 0 … {format.element.levels - 1}." if format.has_min else _element(format.element)
    return f"{element} {_block(format)}".strip()


def layout(format: Format) -> str:
    """The bits of one code, highest first: ``s eeee mmm``; a letter per bit.

    >>> from scrimp.formats import parse
    >>> layout(parse("fp8_e4m3"))
    's eeee mmm'
    """
    return _bits(format.element)


def family(format: Format) -> str:
    """One of: float, integer, table, logarithm and posit, ternary and binary, block."""
    if format.recipe is not None:
        return "named block"
    spec, kind = format.element.spec, format.element.kind
    if kind in ("ternary", "binary"):
        return "ternary and binary"
    if isinstance(spec, Float | Exponent):
        return "float"
    if isinstance(spec, Posit | Log):
        return "posit and logarithm"
    return "codebook" if isinstance(spec, Codebook | Learned) else "integer"


#: In the order in which they are shown.
FAMILIES = ("float", "integer", "named block", "codebook", "ternary and binary", "posit and logarithm")


def _element(element: Element) -> str:
    match element.spec:
        case Float() as f:
            beyond = "saturates" if f.saturate or f.specials == "none" else "overflows"
            return (
                f"Sign, {f.exponent} exponent bits (bias {f.bias}), {f.fraction} fraction bits; "
                f"{_SPECIALS[f.specials]}; {beyond}."
            )
        case Exponent():
            return "A power of two, 2^(code - 127); code 255 is NaN; no sign, no zero."
        case Integer() as i:
            low, high = -i.zero, i.step * (i.count - 1) - i.zero
            listed = [str(i.step * code - i.zero) for code in range(i.count)]
            return f"{', '.join(listed)}." if i.count <= 4 else f"Integers {low} … {high}."
        case Fixed() as x:
            kind = "two's complement" if x.kind == "twos" else "sign and magnitude"
            return f"Fixed point, {kind}: steps of 2^-{x.fraction}."
        case Posit() as p:
            rest = "the fraction taken as a logarithm" if p.logarithmic else "then the fraction"
            return f"A run of equal regime bits, {p.es} exponent bits, {rest}; one NaR."
        case Log() as log:
            return f"Sign and a base-2 logarithm in steps of 2^-{log.fraction}; one zero."
        case Codebook() as book:
            return f"One of {len(book.levels)} levels, listed."
        case Learned() as learned:
            return f"One of {2**learned.bits} levels, learned from each tensor and stored with it."
    raise AssertionError(element.name)


def _block(format: Format) -> str:
    if format.block is None or format.scale is None:
        return "Stored as it is, without a scale." if format.element.kind != "float" else ""
    per = {"row": "row", "tensor": "tensor"}.get(str(format.block), f"{format.block} inputs")
    text = f"{_SCALES[format.scale]} per {per}{_SECOND.get(format.second or '', '')}"
    text = text[0].upper() + text[1:] + (f" {format.span}" if format.span is not None else "")
    if format.has_min:
        sign = "+" if format.span is None else "-"  # K-quants subtract it
        text += f", and a min of the same {'type' if format.span is None else 'two'}: value = scale * code {sign} min"
    if format.recipe is not None and format.recipe.pairs:
        text += ", and a shift of one bit per pair"
    return f"{text}."


def _bits(element: Element) -> str:
    match element.spec:
        case Float() as f:
            return f"s {'e' * f.exponent} {'m' * f.fraction}"
        case Exponent():
            return "eeeeeeee"
        case Fixed() as x if x.kind == "magnitude":
            return f"s {'i' * (x.bits - 1 - x.fraction)} {'f' * x.fraction}".replace("  ", " ")
        case Fixed() as x:
            return f"{'i' * (x.bits - x.fraction)} {'f' * x.fraction}".strip()
        case Posit() as p:
            name = "l" if p.logarithmic else "m"
            return f"s r…r {'e' * p.es} {name}…{name}".replace("  ", " ")
        case Log() as log:
            return f"s {'i' * (log.bits - 1 - log.fraction)} {'f' * log.fraction}"
    if element.planes == (0,):
        return "five codes in a byte, base 3"
    return "c" * element.bits
