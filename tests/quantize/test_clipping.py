"""rtn:octav and rtn:percentile: the papers' clipping points, and never a scale worse than one that was tried."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import FORMATS, LEARNED, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.quantize import rtn
from scrimp.quantize.methods import method
from scrimp.tensors import F32, QTensor, from_codes

EVEN = [name for name in FORMATS if parse(name).element.kind in ("int", "ternary") and not parse(name).has_min]


def errors(q: QTensor, weight: F32) -> np.ndarray:
    return np.asarray(np.square(q.dequantize().astype(np.float64) - weight).sum(axis=1))


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_octav_clips_a_gaussian_where_its_equation_has_its_root(bits: int) -> None:
    """Found by bisection on the same numbers."""
    weight = np.random.default_rng(6).standard_normal((1, 1 << 16)).astype(np.float32)
    size = np.abs(weight.astype(np.float64)).ravel()
    low, high = 0.1, 6.0
    for _ in range(60):
        clip = (low + high) / 2
        outside = size > clip
        grows = size[outside].sum() > clip * (4.0**-bits / 3 * (~outside).sum() + outside.sum())
        low, high = (clip, high) if grows else (low, clip)
    found = method("rtn:octav")(weight, parse(f"int{bits}:row@f32"))
    clip = found.row_scales()[0, 0] * (2 ** (bits - 1) - 1)
    root = float(errors(rtn_at(weight, bits, low), weight)[0])
    # of the Newton steps the best is kept, so it errs no more than the root itself, but for the last step's distance
    assert errors(found, weight)[0] <= root * (1 + 1e-3)
    assert clip < size.max() / 1.2


def rtn_at(weight: F32, bits: int, clip: float) -> QTensor:
    scale = np.float32(clip / (2 ** (bits - 1) - 1))
    half = 2 ** (bits - 1)
    codes = (np.clip(np.rint(weight / scale), -half, half - 1) + half).astype(np.uint8)
    return from_codes(parse(f"int{bits}:row@f32"), codes, np.full((len(weight), 1), scale, np.float32))


@given(st.integers(0, 2**31), st.sampled_from(EVEN))
def test_octav_is_never_worse_than_clipping_nothing(seed: int, name: str) -> None:
    weight, format = np.random.default_rng(seed).standard_t(2, (4, 72)).astype(np.float32), parse(name)
    found = method("rtn:octav")(weight, format)
    if format.element.lopsided or format.recipe is not None or format.element.kind == "ternary":
        return assert_finite(found)  # their plain scale is another one
    plain = errors(rtn.quantize(weight, format, scale="absmax"), weight)
    assert errors(found, weight).sum() <= plain.sum() * (1 + 2 * 80 * 2.0**-24)
    return None


def assert_finite(q: QTensor) -> None:
    assert np.isfinite(q.dequantize()).all()


def test_octav_beats_the_largest_magnitude_where_tails_are_heavy() -> None:
    weight = np.random.default_rng(1).standard_t(3, (32, 256)).astype(np.float32)
    for name in ("int3:row", "int4:row", "ternary"):
        found = errors(method("rtn:octav")(weight, parse(name)), weight).sum()
        assert found < 0.9 * errors(method("rtn:percentile")(weight, parse(name)), weight).sum()


def test_percentile_clips_one_in_a_thousand() -> None:
    weight = np.random.default_rng(7).standard_normal((4, 100_000)).astype(np.float32)
    reach = method("rtn:percentile")(weight, parse("int8:row@f32")).row_scales()[:, 0] * 127
    share = (np.abs(weight) > reach[:, None]).mean(axis=1)
    assert np.abs(share - 0.001).max() <= 1e-5 + 2.0**-22, "of 100,000 order statistics the 99,900th and its neighbour"
    found = method("rtn:percentile")(weight, parse("int8z:row@f32"))
    low, high = found.row_mins()[:, 0], found.row_mins()[:, 0] + 255 * found.row_scales()[:, 0]
    for outside in (weight < low[:, None], weight > high[:, None]):
        assert np.abs(outside.mean(axis=1) - 0.0005).max() <= 3e-5


@pytest.mark.parametrize("name", [*FORMATS, *LEARNED])
def test_every_format_survives_zeros_and_ragged_groups(name: str) -> None:
    names = ["rtn:percentile"] + (["rtn:octav"] if name in EVEN else [])
    for chosen in names:
        assert np.abs(method(chosen)(np.zeros((3, 72), np.float32), parse(name)).dequantize()).max() < 1e-30
        assert_finite(method(chosen)(weights(5, 76), parse(name)))


@pytest.mark.parametrize("name", ["nf4", "int4z:g32", "binary", "kmeans3"])
def test_octav_is_for_evenly_spaced_levels(name: str) -> None:
    with pytest.raises(UsageError, match="octav assumes evenly spaced levels"):
        method("rtn:octav")(weights(4, 64), parse(name))


def test_a_bit_for_which_newton_circles_ends() -> None:
    weight = weights(64, 64)
    found = method("rtn:octav")(weight, parse("int1:g32"))
    assert errors(found, weight).sum() <= np.square(weight.astype(np.float64)).sum()
