"""What a format does to numbers: signal to noise, largest error, and how well its codes are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.formats import Format, encode, packing, parse
from scrimp.formats.catalogue import Rule
from scrimp.formats.code import Codes, Rounding
from scrimp.formats.scale_types import DTYPES
from scrimp.tensors import QTensor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Numbers of a sample; the SQNR of a Gaussian is then known to about 0.02 dB.
SAMPLE = 1 << 17
#: Inputs per row of a sample.
COLUMNS = 1024


@dataclass(frozen=True, slots=True)
class FormatError:
    """What became of some numbers. Infinite SQNR: nothing was lost. NaN: some number has no code in the format."""

    sqnr_db: float  #: 10 log10(Σ x² / Σ (x - x̂)²)
    mse: float  #: mean of (x - x̂)²
    max_error: float  #: largest |x - x̂|
    cosine: float  #: of the angle between x and x̂
    entropy_bits: float | None  #: of the codes, each by itself; None above 16 bits, where they are too many to count
    capacity_used: float | None  #: that entropy over log2 of the codes in use

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LevelUse:
    """One level of a format: how many of the codes it has, and its part of their entropy."""

    level: float  #: before the scale; of formats with a min, the code
    percent: float
    entropy_bits: float  #: -p log2 p
    capacity_percent: float  #: that over log2 of the codes in use


def error_of(values: F32, format: Format, *, rule: Rule | None = None, rounding: Rounding | None = None) -> FormatError:
    """Encode ``values`` (any shape, the last axis in blocks), decode them, and compare in float64."""
    return compare(values, encode(values, format, rule=rule, rounding=rounding))


def compare(values: F32, stored: QTensor) -> FormatError:
    """``values`` and what was stored of them. An all-zero tensor that stays so has infinite SQNR, its cosine is NaN.

    >>> from scrimp.formats import encode
    >>> x = np.float32([[1.0, -1.0, 0.5, 0.0]])
    >>> compare(x, encode(x, "int8:row")).max_error < 1 / 254
    True
    """
    x = values.astype(np.float64).ravel()
    found = stored.decode().astype(np.float64).ravel()
    with np.errstate(all="ignore"):  # infinities and NaN of the values end up in the result
        gap = x - found
        signal, noise, other = float(x @ x), float(gap @ gap), float(found @ found)
        norms = math.sqrt(signal * other)
        largest, along = float(np.abs(gap).max()), float(x @ found)
    counts = code_counts(stored)
    entropy = None if counts is None else _entropy(counts)
    capacity = capacity_bits(stored.format)
    return FormatError(
        sqnr_db=decibels(signal, noise),
        mse=noise / x.size,
        max_error=largest,
        cosine=along / norms if norms > 0 else math.nan,
        entropy_bits=entropy,
        capacity_used=None if entropy is None else entropy / capacity,
    )


def decibels(signal: float, noise: float) -> float:
    """``10 log10(signal / noise)``; infinite without noise, NaN where either is."""
    if math.isnan(signal) or math.isnan(noise):
        return math.nan
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


def capacity_bits(format: Format) -> float:
    """``log2`` of the codes that can be used: 4 of int4, 1.585 of ternary."""
    return math.log2(format.element.levels)


def code_counts(stored: QTensor) -> NDArray[np.int64] | None:
    """How often each code was used, in code order; None above 16 bits."""
    if stored.format.element.bits > 16:
        return None
    return np.bincount(_codes(stored).ravel(), minlength=stored.format.element.levels)


def level_uses(stored: QTensor) -> list[LevelUse]:
    """Every level that occurs and how often, ascending; codes that mean the same number (two zeros) stay apart."""
    counts = code_counts(stored)
    if counts is None:
        return []
    shares = counts / counts.sum()
    levels = level_values(stored)
    used = [c for c in np.argsort(levels, kind="stable") if counts[c]]
    parts = {c: -float(shares[c] * math.log2(shares[c])) + 0.0 for c in used}
    capacity = capacity_bits(stored.format)
    return [LevelUse(float(levels[c]), 100 * float(shares[c]), parts[c], 100 * parts[c] / capacity) for c in used]


def level_values(stored: QTensor) -> F64:
    """The number of every code before the scale; where a format has mins, the codes themselves."""
    element = stored.format.element
    if stored.format.has_min:
        return np.arange(element.levels, dtype=np.float64)
    if "codebook" in stored.extra:
        return stored.extra["codebook"].astype(np.float64)
    if element.kind in ("int", "ternary", "binary"):
        return element.step * np.arange(element.levels, dtype=np.float64) - element.zero
    return element.code().values


def sample(distribution: str, count: int = SAMPLE, seed: int = 0) -> F32:
    """``count`` numbers of unit variance, in rows of 1,024: "gaussian", "laplace" or "student_t"."""
    rows = -(-count // COLUMNS)
    drawn = DISTRIBUTIONS[distribution](np.random.default_rng(seed), (rows, COLUMNS))
    return drawn.astype(np.float32)


#: Name → draws of unit variance. Student's t with 4 degrees of freedom has variance 2.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], F64]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape),
    "laplace": lambda rng, shape: rng.laplace(0, math.sqrt(0.5), shape),
    "student_t": lambda rng, shape: rng.standard_t(4, shape) / math.sqrt(2),
}


def scaled(format: Format) -> tuple[Format, Rule] | None:
    """A format without scales, given one: the best for the whole tensor. None for others, and where none is needed.

    Values "as they are" suit a small float only by luck: of weights of 0.02, fp6 keeps nothing.
    """
    if format.scale is not None or format.element.kind == "float" or format.element.name == "e8m0":
        return None
    return parse(f"{format.element.name}:tensor@f32"), "mse"


def error_by_magnitude(format: Format, octaves: int = 20, per_octave: int = 8) -> Iterator[tuple[float, float]]:
    """``(log2(|x| / largest level), relative error in dB)``: root mean square over an eighth of an octave, scale 1.

    The reference encoder, on 32 evenly spaced numbers per bin. Bins without error are left out.
    """
    if format.element.name == "f32":
        return
    if (largest := largest_level(format)) <= 0:
        return  # int1: -1 and 0
    top = math.log2(largest)
    inside = (np.arange(32) + 0.5) / 32
    for i in range(-octaves * per_octave, per_octave):
        low, high = 2 ** (top + i / per_octave), 2 ** (top + (i + 1) / per_octave)
        with np.errstate(over="ignore"):
            x = np.asarray(low + (high - low) * inside, np.float32)
        if np.isinf(x).any():
            return
        gap = x - _rounded(format, x)
        if not np.isfinite(gap).all():
            return  # beyond the largest number
        error = float(np.mean((gap / x) ** 2))
        if error > 0:
            yield (i + 0.5) / per_octave, 10 * math.log10(error)


def largest_level(format: Format) -> float:
    """The largest finite number of the element."""
    name = format.element.name
    if name in ("f32", "tf32"):
        fraction = 23 if name == "f32" else 10
        return float(np.ldexp(2 - 2.0**-fraction, 127))
    return float(finite_levels(format)[-1])


def finite_levels(format: Format) -> F64:
    """Every finite number before the scale, ascending; where a format has mins, the codes.

    Of f32 and tf32, which have too many, the powers of two: each octave between them holds as many.
    """
    if format.element.name in ("f32", "tf32"):
        lowest = -149 if format.element.name == "f32" else -136
        powers: F64 = np.exp2(np.arange(lowest, 128, dtype=np.float64))
        return powers
    if format.has_min:
        return np.arange(format.element.levels, dtype=np.float64)
    values = format.element.code().values
    found: F64 = np.unique(values[np.isfinite(values)] + 0.0)
    return found


def _rounded(format: Format, x: F32) -> F64:
    if format.element.name == "tf32":
        with np.errstate(over="ignore"):
            decoded: F64 = encode(x, format).decode().astype(np.float64)
        return decoded
    if format.has_min:
        codes: F64 = np.clip(np.rint(x.astype(np.float64)), 0, format.element.levels - 1)
        return codes
    code = format.element.code()
    found: F64 = code.values[code.encode(x.astype(np.float64))]
    return found


def _codes(stored: QTensor) -> Codes:
    element = stored.format.element
    if element.kind != "float":
        return stored.codes()
    return np.ascontiguousarray(packing.unpack_floats(stored.planes[0], DTYPES[element.name], stored.shape)).view(
        np.uint16
    )


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
