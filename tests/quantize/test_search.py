"""The searched scales against brute force: every scale on a fine grid, in float64, in the plainest code there is."""

from __future__ import annotations

import numpy as np
import pytest

from scrimp import _core
from scrimp.formats import parse
from scrimp.quantize import rtn, search, ternary
from scrimp.quantize.blocks import Blocks
from scrimp.tensors import F32


def groups(kind: str, count: int = 24, size: int = 32) -> F32:
    generator = np.random.default_rng(7)
    drawn = {
        "gaussian": lambda: generator.standard_normal((count, size)),
        "heavy tails": lambda: generator.standard_t(3, (count, size)),
        "one side": lambda: np.abs(generator.standard_normal((count, size))),
        "off zero": lambda: generator.standard_normal((count, size)) + 6,
        "few": lambda: generator.standard_normal((count, 5)),
    }[kind]()
    return drawn.astype(np.float32)


def error_of(weight: F32, name: str) -> np.ndarray:
    """Squared error of every row."""
    decoded = rtn.quantize(weight, parse(name)).dequantize()
    return ((decoded.astype(np.float64) - weight) ** 2).sum(axis=1)


def brute_symmetric(row: np.ndarray, bits: int) -> float:
    """The least error over 4000 scales of both signs, each with its nearest codes (no fit)."""
    half = 2 ** (bits - 1)
    scales = np.abs(row).max() / half * np.linspace(0.2, 2.5, 2000)
    scales = np.concatenate([scales, -scales])[:, None]
    return float(((np.clip(np.rint(row / scales), -half, half - 1) * scales - row) ** 2).sum(axis=1).min())


def brute_asymmetric(row: np.ndarray, bits: int) -> float:
    """The least error over 250 x 250 pairs of ends."""
    top, best = 2**bits - 1, np.inf
    low, high = row.min(), row.max()
    ends = np.linspace(-0.1, 0.49, 250)
    for shift in ends:
        start = low + shift * (high - low)
        scale = ((high - ends * (high - low) - start) / top)[:, None]
        codes = np.clip(np.rint((row - start) / scale), 0, top)
        best = min(best, ((codes * scale + start - row) ** 2).sum(axis=1).min())
    return float(best)


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "one side", "off zero"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_symmetric_scales_come_close_to_brute_force(kind: str, bits: int) -> None:
    weight = groups(kind)
    brute = sum(brute_symmetric(row, bits) for row in weight.astype(np.float64))
    # A claim about quality, not a rounding bound: the one search.py makes.
    assert error_of(weight, f"int{bits}:g32@f32").sum() <= (1.02 if kind == "off zero" else 1.005) * brute


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "one side", "off zero"])
@pytest.mark.parametrize("bits", [2, 3])
def test_scales_with_mins_come_close_to_brute_force(kind: str, bits: int) -> None:
    weight = groups(kind, count=12)
    brute = sum(brute_asymmetric(row, bits) for row in weight.astype(np.float64))
    assert error_of(weight, f"int{bits}z:g32@f32").sum() <= 1.015 * brute


def test_a_negative_scale_is_used_where_the_large_weight_is_positive() -> None:
    weight = np.full((2, 32), 0.5, np.float32)
    weight[0, 3], weight[1, 3] = 8, -8
    scales = rtn.quantize(weight, parse("int4:g32")).row_scales()[:, 0]
    assert scales[0] < 0 < scales[1]


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "few"])
def test_ternary_is_the_exact_optimum(kind: str) -> None:
    weight = groups(kind)
    errors = error_of(weight, "ternary:g32@f32")
    for row, error in zip(weight.astype(np.float64), errors, strict=True):
        magnitudes = np.abs(row)
        brute = min(
            ((np.where(magnitudes >= threshold, magnitudes[magnitudes >= threshold].mean(), 0) - magnitudes) ** 2).sum()
            for threshold in magnitudes
        )
        # the stored scale is rounded once: n·(scale·2^-24)² on top, and float32 products
        assert error <= brute + len(row) * (magnitudes.max() * 2.0**-22) ** 2 + 1e-12 * brute


def test_a_block_scanned_in_parts_has_the_same_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(2).standard_normal((3, 5000)).astype(np.float32)
    for name in ("ternary:row", "ternary:tensor"):
        at_once = rtn.quantize(weight, parse(name))
        monkeypatch.setattr(ternary, "_AT_ONCE", 700)
        in_parts = rtn.quantize(weight, parse(name))
        monkeypatch.undo()
        assert (at_once.row_scales() == in_parts.row_scales()).all()


def test_binary_is_the_exact_optimum() -> None:
    weight = groups("gaussian")
    best = np.abs(weight.astype(np.float64)).mean(axis=1, keepdims=True)
    brute = ((np.where(weight >= 0, best, -best) - weight) ** 2).sum(axis=1)
    np.testing.assert_allclose(error_of(weight, "binary:g32@f32"), brute, rtol=1e-6)


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize(("inputs", "count"), [(64, 200), (3, 1), (576, 65)])
def test_the_compiled_scan_is_the_one_in_python(monkeypatch, isa, inputs, count):
    monkeypatch.setenv("SCRIMP_ISA", isa)
    w = np.random.default_rng(inputs).standard_t(3, (inputs, count)).astype(np.float32)
    w[:, 0] = 0
    blocks, fits = Blocks((w,)), np.empty(count)
    peaks = np.abs(w).max(axis=0).astype(np.float64)
    for half in (1, 2, 4, 128):
        _core.scan_symmetric(w, half, peaks, search.COARSE, search.FINE, fits, isa)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(fits, search._scan_of_pieces(blocks, half, peaks))
        assert fits[0] == 0
