"""Tests of the tests: mistakes that others have made, made on purpose. Each must turn the named checks red.

Every check runs on the right code first, so that a red one is the mutant's doing.
"""

from dataclasses import replace

import numpy as np
import pytest
import test_blocks
import test_lookup
import test_oracles
import test_packing
import test_rounding
import test_scalars
import test_scale_rounding
from format_checks import GOLDEN, check_golden, check_nearest, check_numbers_come_back, check_ties

from scrimp.formats import codec, gguf_rules, lookup, packing, rounding, scale_types, search
from scrimp.formats import pairs as pairs_module
from scrimp.formats import scales as scales_module
from scrimp.formats.catalogue import element
from scrimp.formats.code import midpoints
from scrimp.formats.posits import Posit
from scrimp.formats.scales import powers


def caught(check, *arguments):
    """The check fails by an assertion: the tests see this mutant."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(*arguments)


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp6_e3m2", "fp4_e2m1", "posit8_1", "fixed8.6", "int4", "bf16"])
def test_halves_away_from_zero_are_caught_by_the_tie_check(name):
    code = element(name).code()
    check_ties(code, lambda x: code.encode(x, "even"))
    caught(check_ties, code, lambda x: code.encode(x, "away"))


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp4_e2m1", "nf4", "int4", "fixed8.6"])
def test_truncation_is_caught_by_the_nearest_check(name):
    code = element(name).code()
    check_nearest(code, code.encode)
    caught(check_nearest, code, lambda x: code.encode(x, "zero"))


def test_a_nan_code_reused_as_480_is_caught_by_the_golden_digest_and_the_round_trip():
    """E4M3 without NaN, as some libraries have it: 0x7F means 480."""
    code = element("fp8_e4m3").code()
    values = code.values.copy()
    values[[0x7F, 0xFF]] = (480, -480)
    check_golden(code.values, "fp8_e4m3")
    caught(check_golden, values, "fp8_e4m3")
    caught(check_numbers_come_back, replace(code, values=values, cache={}), code.encode)


@pytest.mark.parametrize("name", GOLDEN)
def test_one_wrong_number_in_any_table_is_caught_by_its_digest(name):
    values = element(name).code().values.copy()
    at = int(np.flatnonzero(np.isfinite(values) & (values != 0))[-1])
    values[at] = np.nextafter(values[at], np.inf)
    caught(check_golden, values, name)


def test_posits_rounded_at_midpoints_are_caught_by_the_threshold_test(monkeypatch):
    vector = "posit8_2", [131072, 131073], [65536, 262144]
    test_scalars.test_ties_overflow_and_specials(*vector)
    code = Posit(8, 2).code()
    monkeypatch.setattr(
        test_scalars, "code_of", lambda name: replace(code, thresholds=midpoints(code.levels), cache={})
    )
    caught(test_scalars.test_ties_overflow_and_specials, *vector)
    pytest.importorskip("softposit")
    monkeypatch.setattr(Posit, "code", lambda self: replace(code, thresholds=midpoints(code.levels), cache={}))
    caught(test_oracles.test_softposit_agrees_at_every_threshold_and_on_a_million_numbers, 8, 2)


def test_e8m0_ties_to_even_are_caught():
    code = element("e8m0").code()
    even = replace(code, even=code.codes % 2 == 0, cache={})
    check_ties(code, code.encode)
    caught(check_ties, code, even.encode)


def _ties_to_even(values, kind):
    if kind != "e8m0":
        return scale_types.from_f32(values, kind)
    fraction, exponent = np.frexp(values)
    up = (fraction > 0.75) | ((fraction == 0.75) & ((exponent - 1 + 127) % 2 == 1))
    return scale_types.exponent_code(exponent - 1 + up, values)


def test_e8m0_scale_ties_to_even_are_caught(monkeypatch):
    test_scale_rounding.test_powers_of_two_are_nearest_with_ties_up()
    monkeypatch.setattr(test_scale_rounding, "from_f32", _ties_to_even)
    caught(test_scale_rounding.test_powers_of_two_are_nearest_with_ties_up)


def _floor_by_float32_log2(blocks, format_, grid):
    peak = scales_module.peaks(blocks)
    with np.errstate(divide="ignore"):
        top = np.floor(np.log2(peak.astype(np.float32))).astype(np.float64)
    exponents = top - scales_module.emax(format_.element, scales_module.reach_of(format_))
    return powers(np.where(np.isfinite(exponents), exponents, 0.0), peak, grid)


def test_log2_in_float32_is_caught_just_below_powers_of_two(monkeypatch):
    monkeypatch.setitem(search.RULES, "floor", _floor_by_float32_log2)
    caught(test_scale_rounding.test_just_below_a_power_of_two_floor_takes_the_power_below, 10)
    caught(test_blocks.test_shared_micro_exponents_follow_the_paper, "smx9", 7)
    pytest.importorskip("gfloat")
    caught(test_blocks.test_gfloat_agrees_on_microscaling, "mxfp4")


def _swapped_nibbles(original):
    def pack(codes, stored):
        planes = original(codes, stored)
        return tuple(
            (p >> 4 | p << 4).astype(np.uint8) if width == 4 else p
            for p, width in zip(planes, stored.planes, strict=True)
        )

    return pack


def test_the_wrong_nibble_order_is_caught(monkeypatch):
    monkeypatch.setattr(packing, "pack_codes", _swapped_nibbles(packing.pack_codes))
    caught(test_packing.test_a_nibble_lies_where_the_drawing_says)
    caught(test_packing.test_packed_codes_come_back, element("int4"), (17, 33))
    caught(test_packing.test_the_compiled_packing_equals_numpy, element("int4"), (17, 33))


@pytest.mark.parametrize("name", ["q4_0", "q5_1", "q8_0"])
def test_codes_from_a_scale_rounded_to_half_are_caught_by_gguf(name, monkeypatch):
    pytest.importorskip("gguf")
    import test_gguf_rules

    inverse = gguf_rules._inverse
    monkeypatch.setattr(gguf_rules, "_inverse", lambda d: inverse(d.astype(np.float16).astype(np.float32)))
    caught(test_gguf_rules.test_bytes_equal_those_of_gguf, name)


def test_halves_to_even_in_q8_0_are_caught_by_gguf(monkeypatch):
    pytest.importorskip("gguf")
    import test_gguf_rules

    monkeypatch.setattr(gguf_rules, "to_integers", lambda x, rounding: np.trunc(x))
    caught(test_gguf_rules.test_bytes_equal_those_of_gguf, "q8_0")


def test_truncated_micro_exponents_and_rounded_msfp_are_caught(monkeypatch):
    to_codes = codec.to_codes
    monkeypatch.setattr(
        codec, "to_codes", lambda e, x, r, rng, **kw: to_codes(e, x, {"even": "zero", "zero": "even"}[r], rng, **kw)
    )
    caught(test_blocks.test_shared_micro_exponents_follow_the_paper, "smx6", 4)
    caught(test_blocks.test_microsoft_floating_point_truncates, "msfp12", 3)


def test_codes_from_the_unrounded_scale_are_caught(monkeypatch):
    """Codes must be computed with the scale as stored: else weights end up more than half a step away."""
    original = codec._codes_of

    def unrounded(blocks, scales, values, job):
        peak = scales_module.peaks(blocks) / np.float32(scales_module.reach_of(job.format))
        return original(blocks, scales, np.where(values == 0, values, peak), job)

    monkeypatch.setattr(codec, "_codes_of", unrounded)
    caught(test_scale_rounding.test_absmax_keeps_every_weight_within_half_a_step, "int3:row@bf16")


def test_a_forgotten_pair_shift_is_caught(monkeypatch):
    monkeypatch.setattr(
        pairs_module, "shifts", lambda blocks, scales: np.zeros((*blocks.shape[:2], -(-blocks.shape[2] // 2)), np.uint8)
    )
    caught(test_blocks.test_shared_micro_exponents_follow_the_paper, "smx6", 4)


def test_absmax_scales_rounded_to_nearest_are_caught(monkeypatch):
    """Half of them are then too small, and clip the largest of their block."""
    monkeypatch.setattr(scales_module, "at_least", scale_types.to_nearest)
    caught(test_scale_rounding.test_absmax_clips_nothing, "int4:g32")


def test_a_lost_sticky_bit_is_caught(monkeypatch):
    """Looking a code up by 16 bits alone forgets what lies just above a tie."""

    def without_sticky(self, x, out):
        self.table.take(x.view(np.uint32) >> 16 << 1, out=out, mode="clip")

    test_lookup.test_looked_up_codes_equal_the_reference("fp8_e4m3", "even")
    monkeypatch.setattr(lookup._Buckets, "__call__", without_sticky)
    caught(test_lookup.test_looked_up_codes_equal_the_reference, "fp8_e4m3", "even")


def test_a_threshold_taken_on_the_wrong_side_is_caught(monkeypatch):
    def strictly_above(self, x, out):
        bucket = x.view(np.uint32) >> 16
        high = x > self.first.take(bucket, mode="clip")
        self.lower.take(bucket, out=out, mode="clip")
        np.copyto(out, self.upper.take(bucket, mode="clip"), where=high)

    monkeypatch.setattr(lookup._Compared, "__call__", strictly_above)
    caught(test_lookup.test_looked_up_codes_equal_the_reference, "nf4", "even")


def test_double_rounding_is_caught(monkeypatch):
    from scrimp import tensors

    test_rounding.test_float64_is_rounded_once("fp8_e4m3")
    monkeypatch.setattr(tensors, "exact_f32", lambda values: values.astype(np.float32))
    caught(test_rounding.test_float64_is_rounded_once, "fp8_e4m3")
    caught(test_rounding.test_float64_reaches_bfloat16_and_half_without_a_second_rounding)


def test_adding_a_half_and_truncating_is_caught(monkeypatch):
    def naive(x, kind, uniform=None):
        return np.trunc(x + np.copysign(np.float32(0.5), x)) if kind == "away" else np.trunc(x)

    monkeypatch.setattr(test_rounding, "to_integers", naive)
    caught(test_rounding.test_halves_away_from_zero_are_found_exactly)


def test_stochastic_rounding_that_always_goes_up_is_caught(monkeypatch):
    code_type = type(element("fp4_e2m1").code())
    original = code_type.encode
    monkeypatch.setattr(
        code_type, "encode", lambda self, x, r="even", u=None: original(self, x, r, None if u is None else np.sqrt(u))
    )
    caught(test_rounding.test_stochastic_rounding_picks_a_neighbour_and_is_right_on_average, "fp4_e2m1")


def test_a_two_level_scale_without_its_second_level_is_caught(monkeypatch):
    monkeypatch.setattr(codec, "unit_of", lambda w, format_: np.ones((1, 1), np.float32))
    caught(test_blocks.test_nvfp4_follows_its_two_level_definition)


def test_wrapping_instead_of_saturating_is_caught(monkeypatch):
    def wrapped(stored, x, kind="even", rng=None, *, code=None):
        return (np.rint(x).astype(np.int64) + stored.zero & (2**stored.bits - 1)).astype(np.uint8)

    monkeypatch.setattr(test_lookup, "to_codes", wrapped)
    with np.errstate(invalid="ignore"):
        caught(test_lookup.test_integer_arithmetic_equals_the_reference, "int4", "even")
    assert rounding.to_codes is not wrapped
