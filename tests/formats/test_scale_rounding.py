"""Scale types, and the rules that choose scales."""

import numpy as np
import pytest
from block_checks import sqnr
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp.errors import UsageError
from scrimp.formats import encode, parse
from scrimp.formats.scale_types import DTYPES, LARGEST, at_least, at_most, from_f32, to_f32, to_nearest
from scrimp.formats.scales import reach_of
from scrimp.formats.search import RULES

KINDS = ["f16", "bf16", "f32", "e8m0", "e4m3"]


def all_scales(kind):
    """Every finite non-negative number of a scale type, ascending."""
    if kind == "f32":
        bits = np.arange(0, 0x7F800000, 65_521, dtype=np.uint32)
        return bits.view(np.float32).astype(np.float64)
    stored = np.arange(2 ** (8 * DTYPES[kind].itemsize)).astype(np.uint8 if kind[0] == "e" else np.uint16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = to_f32(stored.view(DTYPES[kind]), kind).astype(np.float64)
    return np.unique(values[np.isfinite(values) & (values >= 0)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_scale_is_kept_by_all_three_roundings(kind):
    values = all_scales(kind)
    assert np.array_equal(to_f32(to_nearest(values, kind), kind), values)
    assert np.array_equal(to_f32(at_least(values, kind), kind), values)
    if kind[0] != "e":
        assert np.array_equal(to_f32(at_most(values, kind), kind), values)


@pytest.mark.parametrize("kind", ["f16", "bf16", "e8m0", "e4m3"])
def test_between_two_scales_each_rounding_goes_its_way(kind):
    values = all_scales(kind)
    low, high = values[:-1], values[1:]
    for share in (0.01, 0.3, 0.7, 0.99):
        x = low + (high - low) * share
        assert np.array_equal(to_f32(at_least(x, kind), kind), high)
        if kind[0] != "e":
            assert np.array_equal(to_f32(at_most(x, kind), kind), low)
            assert np.array_equal(to_f32(at_most(-x, kind), kind), -high)
        nearest = to_f32(to_nearest(x, kind), kind)
        assert np.array_equal(nearest, low if share < 0.5 else high)


@pytest.mark.parametrize("kind", KINDS)
def test_scales_beyond_the_range_become_the_largest_and_nan_stays_nan(kind):
    assert to_f32(to_nearest(np.array([1e300]), kind), kind)[0] == np.float32(LARGEST[kind])
    assert to_f32(at_least(np.array([1e300]), kind), kind)[0] == np.float32(LARGEST[kind])
    assert np.isnan(to_f32(from_f32(np.array([np.nan], np.float32), kind), kind))[0]


def test_powers_of_two_are_nearest_with_ties_up():
    x = np.float32([1.49, 1.5, 3, 2.99, 0, 2.0**-140])
    assert to_f32(from_f32(x, "e8m0"), "e8m0").tolist() == [1, 2, 4, 2, 2.0**-127, 2.0**-127]


def one_block(peak, name, rule):
    """The scale of a block of 32 whose largest magnitude is ``peak``."""
    row = np.zeros((1, 32), np.float32)
    row[0, 7], row[0, 8] = -peak, peak / 3
    return float(encode(row, name, rule=rule).row_scales()[0, 0])


@pytest.mark.parametrize(
    ("peak", "floor", "ceil", "rceil", "even"),
    [
        (6, 1, 2, 1, 1),
        (6.1, 1, 2, 2, 1),
        (7, 1, 2, 2, 2),
        (7.9, 1, 2, 2, 2),
        (8, 2, 2, 2, 2),
        (4, 1, 1, 1, 1),
        (4.1, 1, 2, 1, 1),
    ],
)
def test_the_power_of_two_rules_of_e2m1(peak, floor, ceil, rceil, even):
    """torchao's names. even: 7 = 1.75·4 rounds half up to 8 at one fraction bit, 6.1 to 6."""
    got = {rule: one_block(peak, "mxfp4", rule) for rule in ("floor", "ceil", "rceil", "even")}
    assert got == {"floor": floor, "ceil": ceil, "rceil": rceil, "even": even}


@pytest.mark.parametrize("k", [-100, -20, -1, 0, 4, 10, 63, 126])
def test_just_below_a_power_of_two_floor_takes_the_power_below(k):
    """log2 in float32 rounds up to k there; frexp does not."""
    below = np.nextafter(np.float32(2.0**k), np.float32(0))
    assert one_block(below, "mxfp8_e4m3", "floor") == 2.0 ** max(k - 1 - 8, -127)
    assert one_block(np.float32(2.0**k), "mxfp8_e4m3", "floor") == 2.0 ** max(k - 8, -127)


def test_power_of_two_scales_are_an_option_everywhere():
    w = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    for name in ("int4:g64", "nf4:g64@f32", "fp4_e2m1:g32@bf16"):
        scales = encode(w, name, rule="floor").row_scales()
        assert np.array_equal(np.log2(scales), np.rint(np.log2(scales)))


@pytest.mark.parametrize(
    "name",
    [
        "int2:g64",
        "int3:g64",
        "int4:g32",
        "int4:row",
        "int8:g128@f32",
        "int4:g64@e8m0",
        "int6:g64@bf16",
        "fp4_e2m1:g32",
        "fp6_e2m3:row",
        "nf4:g64",
        "fixed8.4:g64",
        "int7:g64",
        "int4r:g64",
        "int5:g64@e4m3",
    ],
)
def test_absmax_clips_nothing(name):
    w = np.random.default_rng(1).normal(size=(16, 512)).astype(np.float32)
    tensor = encode(w, name, rule="absmax")
    group = tensor.format.group(512)
    reach = tensor.row_scales().astype(np.float64) * reach_of(tensor.format)
    assert np.all(np.abs(w).reshape(16, -1, group).max(axis=-1) <= reach * (1 + 2**-24))


@pytest.mark.parametrize(
    "name", ["int4:g64", "int8:g32@f32", "int3:row@bf16", "int4z:g64", "int5z:row@f32", "int16:g64@f32", "uint8"]
)
def test_absmax_keeps_every_weight_within_half_a_step(name):
    w = np.random.default_rng(2).normal(size=(16, 512)).astype(np.float32)
    w = np.abs(w) if name.startswith("uint") else w
    tensor = encode(w, name, rule="absmax")
    step = np.repeat(tensor.row_scales(), tensor.format.group(512), axis=1)[:, :512].astype(np.float64)
    # products and sums are float32: half an ulp of each factor's size on top
    slack = 2.0**-22 * (np.abs(w) + step * 2)
    assert np.all(np.abs(tensor.decode() - w) <= step / 2 + slack)


@pytest.mark.parametrize(
    "name", ["int4:g64", "int8:tensor", "int4:row@f32", "int3:g128@bf16", "int4z:g64", "int8z:row"]
)
def test_absmax_is_what_round_to_nearest_means_by_it(name):
    """int4:g64 is one format: the laboratory and the quantizer give the same bits."""
    from scrimp.quantize.rtn import quantize

    w = np.random.default_rng(3).standard_t(4, size=(40, 384)).astype(np.float32)
    ours, theirs = encode(w, name, rule="absmax"), quantize(w, parse(name), scale="absmax")
    assert np.array_equal(ours.codes(), theirs.codes())
    assert np.array_equal(ours.decode(), theirs.dequantize())


@pytest.mark.parametrize(
    "name",
    [
        "int2:g64",
        "int3:g32",
        "int4:g64",
        "int4:tensor",
        "int8:row",
        "nf4:g64",
        "fp4_e2m1:g32",
        "quaternary",
        "ternary:row",
        "iq4nl",
        "int4:g64@e8m0",
        "int4:g64@e4m3",
        "int4z:g64",
        "posit8_1:g64",
        "int1:g32",
    ],
)
def test_the_search_errs_no_more_than_the_plain_rule(name):
    w = np.random.default_rng(4).standard_t(4, size=(32, 512)).astype(np.float32)
    plain = "absmean" if name.startswith("ternary") else "rms" if name.startswith("posit") else "absmax"
    assert sqnr(w, encode(w, name, rule="mse").decode()) >= sqnr(w, encode(w, name, rule=plain).decode()) - 1e-6


def test_the_search_is_near_brute_force():
    """Within 1 % of the squared error of 4,000 scales, per block."""
    w = np.random.default_rng(5).standard_t(4, size=(24, 64)).astype(np.float32)
    found = ((encode(w, "int3:g64@f32", rule="mse").decode() - w) ** 2).sum(axis=1)
    peak = np.abs(w).max(axis=1, keepdims=True).astype(np.float64) / 3
    best = np.full(24, np.inf)
    for factor in np.geomspace(0.1, 1.3, 4000):
        kept = np.clip(np.rint(w / (peak * factor)), -4, 3) * (peak * factor)
        best = np.minimum(best, ((kept - w) ** 2).sum(axis=1))
    assert np.all(found <= 1.01 * best)


def test_octav_finds_the_clipping_point_of_a_gaussian():
    """The fixed point of its equation, solved by bisection on the same numbers; and it beats the largest magnitude."""
    w = np.random.default_rng(6).normal(size=(1, 1 << 16)).astype(np.float32)
    size, inner = np.abs(w.astype(np.float64)).ravel(), 4.0**-4 / 3

    def residual(s):
        outside = size > s
        return size[outside].sum() - s * (inner * (~outside).sum() + outside.sum())

    low, high = 0.1, 6.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if residual(middle) > 0 else (low, middle)
    tensor = encode(w, "int4:row@f32", rule="octav")
    assert float(tensor.row_scales()[0, 0]) * 7 == pytest.approx(low, rel=1e-3)
    assert sqnr(w, tensor.decode()) > sqnr(w, encode(w, "int4:row@f32", rule="absmax").decode()) + 3


def test_percentile_clips_one_in_a_thousand():
    w = np.random.default_rng(7).normal(size=(4, 100_000)).astype(np.float32)
    reach = encode(w, "int8:row@f32", rule="percentile").row_scales()[:, 0] * 127
    assert np.all(np.abs((np.abs(w) > reach[:, None]).mean(axis=1) - 0.001) < 2e-4)


def test_ternary_weight_networks_and_absmean():
    w = np.random.default_rng(8).normal(size=(2, 50_000)).astype(np.float32)
    size = np.abs(w.astype(np.float64))
    delta = 0.7 * size.mean(axis=1, keepdims=True)
    survivors = (size * (size > delta)).sum(axis=1) / (size > delta).sum(axis=1)
    assert np.allclose(encode(w, "ternary:row@f32", rule="twn").row_scales()[:, 0], survivors, rtol=1e-6)
    assert np.allclose(encode(w, "ternary:row@f32").row_scales()[:, 0], size.mean(axis=1), rtol=1e-6)
    assert np.allclose(encode(w, "binary:row@f32").row_scales()[:, 0], size.mean(axis=1), rtol=1e-6)


def test_the_long_side_of_a_lopsided_code_follows_the_longer_tail():
    row = np.zeros((2, 64), np.float32)
    row[0, :3], row[1, :3] = (2, 1, -1), (-2, -1, 1)
    tensor = encode(row, "quaternary:g64", rule="absmax")
    assert np.array_equal(tensor.decode(), row)
    assert np.sign(tensor.row_scales()[:, 0]).tolist() == [1, -1]
    nl = np.zeros((2, 64), np.float32)
    nl[0, :2], nl[1, :2] = (1.27, -1.13), (-1.27, 1.13)
    assert np.allclose(encode(nl, "iq4nl@f32", rule="absmax").decode()[:, :2], nl[:, :2], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"format": "int4", "rule": "best"}, "'best' is no scale rule"),
        ({"format": "int4", "rule": "gguf"}, "int4:g64 is no format of llama.cpp"),
        ({"format": "int4z", "rule": "octav"}, "'octav' chooses no min"),
        ({"format": "nf4", "rule": "octav"}, "octav assumes evenly spaced levels"),
        ({"format": "int4", "rounding": "up"}, "'up' is no rounding"),
    ],
)
def test_wrong_rules_are_refused_with_a_hint(call, message):
    with pytest.raises(UsageError) as caught:
        encode(np.ones((2, 64), np.float32), **call)
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_no_rule_ever_makes_a_finite_block_infinite(rule, data):
    values = data.draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=64, max_size=64))
    name = data.draw(
        st.sampled_from(["int4:g32", "int4:g32@f32", "int4:g64@e8m0", "int3:g32@e4m3", "ternary:row", "int4:tensor"])
    )
    found = encode(np.array([values], np.float32), name, rule=rule).decode()
    assert np.isfinite(found).all()
