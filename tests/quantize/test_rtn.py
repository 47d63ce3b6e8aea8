"""Rounding to nearest: the bound that holds exactly, the edges, and what must not matter."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.formats.scale_types import LARGEST
from scrimp.quantize import rtn
from scrimp.tensors import F32, QTensor

INTS = [f"int{bits}{z}" for bits in (2, 3, 4, 5, 6, 8) for z in ("", "z")]
BLOCKS = ("g32", "g64", "g128", "g256", "row", "tensor")
SCALES = ("f16", "bf16", "f32")
CATALOGUE = [
    *("f32", "f16", "bf16"),
    *(f"{e}:{b}@{s}" for e, b, s in product([*INTS, "ternary", "binary"], BLOCKS, SCALES)),
]


def weights(rows: int, cols: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def by_weight(q: QTensor, per_group: F32) -> np.ndarray:
    """A number of every group → the same number for every weight, float64."""
    group = q.format.group(q.shape[1])
    return np.repeat(np.asarray(per_group, np.float64), group, axis=1)[:, : q.shape[1]]


def squared_error(q: QTensor, weight: F32) -> float:
    return float(((q.dequantize().astype(np.float64) - weight) ** 2).sum())


def assert_within_half_a_step(q: QTensor, weight: F32) -> None:
    """``|w - ŵ| <= scale/2``, plus the float32 roundings of ``scale·code`` and of ``+ min`` where those are inexact."""
    scale = by_weight(q, q.row_scales())
    half = np.abs(scale) / 2
    slack = np.zeros(weight.shape)
    if q.mins is not None:
        # w - min and scale·code + min are rounded once each; the quotient once more.
        low = by_weight(q, q.row_mins())
        slack = 2.0**-23 * (np.abs(low) + np.abs(weight) + 2 * q.format.element.levels * scale) + 2.0**-148
    elif q.format.scale == "f32":
        slack = 2.0**-23 * q.format.element.levels * scale + 2.0**-148
    assert (np.abs(q.dequantize().astype(np.float64) - weight) <= half + slack).all()


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("rule", ["mse", "absmax"])
def test_every_format_of_the_catalogue_takes_a_ragged_matrix(name: str, rule: rtn.Scale) -> None:
    weight = weights(17, 76)
    q = rtn.quantize(weight, parse(name), scale=rule)
    assert (q.shape, q.format) == (weight.shape, parse(name))
    assert squared_error(q, weight) < (weight.astype(np.float64) ** 2).sum(), "worse than storing zeros"


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
ordinary = st.floats(-(2.0**14), 2.0**14, width=32)


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 70)), elements=ordinary), st.sampled_from(INTS),
       st.sampled_from(("g32", "row", "tensor")), st.sampled_from(SCALES))  # fmt: skip
def test_absmax_keeps_every_weight_within_half_a_step(weight: F32, element: str, block: str, scale: str) -> None:
    assert_within_half_a_step(rtn.quantize(weight, parse(f"{element}:{block}@{scale}"), scale="absmax"), weight)


@given(arrays(np.float32, (2, 40), elements=st.floats(-(2.0**-18), 2.0**-18, width=32)), st.sampled_from(INTS))
def test_the_bound_holds_where_f16_scales_are_subnormal(weight: F32, element: str) -> None:
    assert_within_half_a_step(rtn.quantize(weight, parse(f"{element}:g32"), scale="absmax"), weight)


def test_the_bound_can_fail_when_codes_use_the_unrounded_scale() -> None:
    """The reason for the rule: the same weights, codes from the exact scale, exceed half a step of the stored one."""
    weight = weights(64, 64)
    exact = np.abs(weight).max(axis=1, keepdims=True) / 127
    stored = exact.astype(np.float16).astype(np.float64)
    assert (np.abs(np.rint(weight / exact) * stored - weight) > stored / 2).any()


@given(arrays(np.float32, (3, 37), elements=finite), st.sampled_from(CATALOGUE), st.sampled_from(["mse", "absmax"]))
def test_finite_weights_never_become_nan_or_infinite(weight: F32, name: str, rule: rtn.Scale) -> None:
    q = rtn.quantize(weight, parse(name), scale=rule)
    if q.scales is not None:
        assert np.isfinite(q.row_scales()).all()
    # scale·code of the largest float32 scales can pass the largest float32, as the weights they stand for nearly do
    if np.abs(weight).max(initial=0) < 2.0**120:
        assert np.isfinite(q.dequantize()).all()


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_beyond_its_type_is_clamped_to_the_largest_finite_value(scale: str) -> None:
    weight = np.full((1, 32), 3e38, np.float32)
    q = rtn.quantize(weight, parse(f"int2:g32@{scale}"), scale="absmax")
    assert q.row_scales()[0, 0] == pytest.approx(min(LARGEST[scale], 3e38), rel=2**-7)
    assert (rtn.quantize(weight, parse("f16")).dequantize() == LARGEST["f16"]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["int4:g64", "f16", "ternary", "int4z:tensor"])
def test_nan_and_infinity_are_refused(bad: float, name: str) -> None:
    weight = weights(4, 64)
    weight[2, 5] = bad
    with pytest.raises(Refused, match="1 of 256 weights are NaN or infinite"):
        rtn.quantize(weight, parse(name))


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("rule", ["mse", "absmax"])
def test_an_all_zero_group_survives(name: str, rule: rtn.Scale) -> None:
    weight = weights(3, 96)
    weight[1] = 0
    decoded = rtn.quantize(weight, parse(name), scale=rule).dequantize()
    if "tensor" not in name:
        assert (decoded[1] == 0).all()
    assert (rtn.quantize(np.zeros((3, 40), np.float32), parse(name), scale=rule).dequantize() == 0).all()


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_single_weight_comes_back_nearly_itself(name: str) -> None:
    format = parse(name)
    for value in (1.7, -0.3):
        back = rtn.quantize(np.array([[value]], np.float32), format).dequantize()[0, 0]
        # one rounding of the scale (or value) and one of the min, at most 2^-8 each (bfloat16)
        assert back == pytest.approx(value, rel=2.0**-7)


@pytest.mark.parametrize("element", ["int2z", "int4z", "int8z"])
def test_a_group_of_equal_weights_keeps_its_value(element: str) -> None:
    weight = np.full((2, 64), 0.15625, np.float32)  # a float16
    assert (rtn.quantize(weight, parse(f"{element}:g64")).dequantize() == weight).all()


not_tiny = st.floats(-8, 8, width=32).filter(lambda x: x == 0 or abs(x) > 2**-8)


@given(
    arrays(np.float32, (3, 45), elements=not_tiny),
    st.sampled_from([name for name in CATALOGUE if name != "f16"]),
    st.sampled_from(["mse", "absmax"]),
    st.integers(-3, 3),
)
def test_a_power_of_two_scales_through(weight: F32, name: str, rule: rtn.Scale, exponent: int) -> None:
    # f16 mins and fits of a block may be tiny differences, where float16 is subnormal and scaling is not exact
    format = parse(name.replace("@f16", "@bf16"))
    q, scaled = (rtn.quantize(w, format, scale=rule) for w in (weight, weight * np.float32(2.0**exponent)))
    assert (scaled.dequantize() == q.dequantize() * np.float32(2.0**exponent)).all()


@pytest.mark.parametrize("name", ["int4:g64", "int3z:g32", "int8:row", "ternary:g64", "binary:row", "bf16"])
def test_rows_may_be_permuted(name: str) -> None:
    weight, order = weights(301, 172), np.random.default_rng(1).permutation(301)
    q, permuted = (rtn.quantize(w, parse(name)) for w in (weight, weight[order]))
    assert (permuted.dequantize() == q.dequantize()[order]).all()


@pytest.mark.parametrize("name", ["int4:g64", "int4z:g64", "int4:tensor", "int4z:tensor", "ternary:tensor"])
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    weight = weights(700, 640)
    one, many = (rtn.quantize(weight, parse(name), threads=threads) for threads in (1, 5))
    for part, stored in one.parts().items():
        assert (stored == many.parts()[part]).all(), part


@pytest.mark.parametrize("name", ["int4:g64", "int4z:g64", "ternary", "bf16"])
def test_strided_and_float64_weights_are_the_same_weights(name: str) -> None:
    weight = weights(40, 128)
    q = rtn.quantize(weight, parse(name))
    strided = rtn.quantize(np.asfortranarray(weight.astype(np.float64)), parse(name))  # type: ignore[arg-type]
    assert (q.dequantize() == strided.dequantize()).all()


@pytest.mark.parametrize("name", [n for n in CATALOGUE if n.startswith("int")])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_search_is_never_worse_than_absmax(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weight = generator.standard_t(2, (4, 80)).astype(np.float32)
    best, plain = (squared_error(rtn.quantize(weight, parse(name), scale=rule), weight) for rule in ("mse", "absmax"))
    # errors are compared as float32 sums of at most 320 terms: Higham's bound on each
    assert best <= plain * (1 + 2 * 330 * 2.0**-24)


def test_what_a_format_holds_exactly_comes_back_exactly() -> None:
    generator = np.random.default_rng(3)
    codes = generator.integers(0, 16, (8, 64))
    codes[:, :2] = 0, 15  # both ends in use
    weight = (codes * 0.25 - 1.5).astype(np.float32)
    for rule in ("mse", "absmax"):
        assert (rtn.quantize(weight, parse("int4z:g64"), scale=rule).dequantize() == weight).all()  # type: ignore[arg-type]


def test_floats_are_cast_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    weight = weights(33, 70)
    assert (rtn.quantize(weight, parse("f32")).dequantize() == weight).all()
    assert (rtn.quantize(weight, parse("f16")).dequantize() == weight.astype(np.float16)).all()
    bf16 = weight.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (rtn.quantize(weight, parse("bf16")).dequantize() == bf16).all()


def test_ternary_absmax_is_the_rule_of_bitnet() -> None:
    weight = weights(4, 64)
    q = rtn.quantize(weight, parse("ternary:row@f32"), scale="absmax")
    mean = np.abs(weight.astype(np.float64)).mean(axis=1).astype(np.float32)
    np.testing.assert_allclose(q.row_scales()[:, 0], mean, rtol=65 * 2.0**-24)
    assert (q.codes() - 1.0 == np.clip(np.rint(weight / q.row_scales()), -1, 1)).all()
