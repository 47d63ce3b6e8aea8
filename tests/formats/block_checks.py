"""Tensors that break block formats, and independent readings of their definitions, one number at a time in float64."""

from __future__ import annotations

import math

import numpy as np

from scrimp.formats.catalogue import element


def adversarial_rows(groups: int, group: int, seed: int = 0) -> np.ndarray:
    """Rows scaled by 2^-12 … 2^12, zeros, subnormals, and peaks at, just below and just above powers of two."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(40, groups * group)).astype(np.float32)
    rows *= 2.0 ** np.linspace(-12, 12, 40, dtype=np.float32)[:, None].round()
    rows[0, :group] = 0
    rows[1, : group // 2] = 0
    rows[2] = rng.normal(size=groups * group) * 2.0**-140
    below = np.nextafter(np.float32(1), np.float32(0))
    for row, k in enumerate((0, 4, 10, 30, 100, -3, -40, 127), start=3):
        for at, factor in enumerate((1, below, np.nextafter(np.float32(1), np.float32(2)), np.float32(1.9999))):
            block = slice(at % groups * group, at % groups * group + group)
            rows[row, block] = np.clip(rng.normal(size=group) / 4, -0.9, 0.9) * 2.0**k
            with np.errstate(over="ignore"):
                rows[row, at % groups * group] = (
                    np.float32(factor) * np.float32(2.0**k) if k < 127 else below * np.float32(2.0**127)
                )
    rows[12, ::group] = 3e38
    rows[13] = np.sign(rows[13]) * 1.5 * 2.0**-5  # everything equal in size
    return rows.astype(np.float32)


def nearest_even(value: float, levels: list[float], parity: list[bool]) -> float:
    """The nearest level, ties to the even code; levels ascending, ``parity[i]`` whether level i has an even code."""
    index = int(np.searchsorted(levels, value))
    if index == 0:
        return levels[0]
    if index == len(levels):
        return levels[-1]
    low, high = value - levels[index - 1], levels[index] - value
    if low == high:
        return levels[index - 1] if parity[index - 1] else levels[index]
    return levels[index - 1] if low < high else levels[index]


def scalar_rounder(name: str):
    """Magnitudes of a symmetric element, as a function of one float."""
    code = element(name).code()
    levels, parity = code.levels.tolist(), code.even.tolist()

    def round_one(value: float) -> float:
        return math.copysign(nearest_even(abs(value), levels, parity), value)

    return round_one


def exponent(value: float) -> int:
    """floor(log2 value), exactly."""
    return math.frexp(value)[1] - 1


def smx_block(block: np.ndarray, m: int) -> np.ndarray:
    """Shared micro-exponents by the paper's words: step 2^(E - shift - m + 1), magnitudes of m bits."""
    peak = float(np.abs(block).max())
    if peak == 0:
        return np.zeros_like(block)
    top, out = max(exponent(peak), -127), []
    for at in range(0, len(block), 2):
        pair = [float(v) for v in block[at : at + 2]]
        own = max(abs(v) for v in pair)
        shift = 1 if own == 0 or exponent(own) < top else 0
        step = 2.0 ** (top - shift - m + 1)
        for v in pair:
            q = min(round(abs(v) / step), 2**m - 1)  # Python's round is half to even
            out.append(math.copysign(q * step, v))
    return np.array(out)


def msfp_block(block: np.ndarray, bits: int) -> np.ndarray:
    """Microsoft's block floating point: the largest exponent is shared, mantissas are shifted right and truncated."""
    peak = float(np.abs(block).max())
    if peak == 0:
        return np.zeros_like(block)
    step = 2.0 ** (max(exponent(peak), -127) - bits + 1)
    return np.array([math.copysign(math.floor(abs(float(v)) / step) * step, v) for v in block])


def nvfp4_rows(rows: np.ndarray) -> np.ndarray:
    """s_T = max|w| / (448·6), s_b = e4m3(max|w_b| / 6 / s_T), x = q·(s_b·s_T); scales multiply as float32."""
    to_e4m3, to_e2m1 = scalar_rounder("fp8_e4m3"), scalar_rounder("fp4_e2m1")
    tensor = np.float32(float(np.abs(rows).max()) / (448 * 6))
    out = np.zeros_like(rows)
    for r, row in enumerate(rows):
        for at in range(0, len(row), 16):
            peak = float(np.abs(row[at : at + 16]).max())
            block_scale = to_e4m3(float(np.float32(peak / 6 / float(tensor)))) if peak else 0.0
            scale = np.float32(block_scale) * tensor
            if scale == 0:
                continue
            for k in range(at, min(at + 16, len(row))):
                out[r, k] = np.float32(to_e2m1(float(row[k] / scale))) * scale
    return out


def vsq_rows(rows: np.ndarray, bits: int, scale_bits: int) -> np.ndarray:
    """VS-Quant: s = max|w| / (2^(b-1) - 1) per 16, g = max s / (2^M - 1) per row, s_q = round(s / g)."""
    top, most = 2 ** (bits - 1) - 1, 2**scale_bits - 1
    out = np.zeros_like(rows)
    for r, row in enumerate(rows):
        unit = np.float32(float(np.abs(row).max()) / (top * most))
        for at in range(0, len(row), 16):
            block = row[at : at + 16]
            ideal = float(np.abs(block).max()) / top
            scale = np.float32(round(float(np.float32(ideal / float(unit))))) * unit if unit else np.float32(0)
            if scale:
                out[r, at : at + 16] = [np.float32(max(-top, min(top, round(float(v / scale))))) * scale for v in block]
    return out


def sqnr(w, kept) -> float:
    w64 = np.asarray(w, np.float64)
    return float(10 * np.log10(np.sum(w64**2) / np.sum((w64 - kept) ** 2)))
