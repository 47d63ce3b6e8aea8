"""Activation quantization of every instruction set, seen through matrices that let int8 codes and their sums through.

With the identity as int8 codes and scale 1, output n of a token is ``scale * q`` of input n, rounded once, and all else
adds exact zeros; with codes 0 and mins 1 it is the sum of ``scale * sum(q)`` over the blocks.
"""

import numpy as np
import pytest

from scrimp import _core
from scrimp.engine.engine import core_matrix
from scrimp.formats import parse
from scrimp.quantize import rtn
from scrimp.tensors import from_codes

TOKENS = (1, 2, 11, 12, 13, 25)  # activations are interleaved in blocks of 12 tokens


def identity(cols):
    fmt = parse("int8:row")
    codes = np.full((cols, cols), fmt.element.zero, np.uint8) + np.eye(cols, dtype=np.uint8)
    return core_matrix(from_codes(fmt, codes, np.ones((cols, 1), np.float16)))


def through_identity(x, isa, block=32):
    """``scale * q`` of every input: (T, K) -> (T, K)."""
    return _core.linear(identity(x.shape[1]), np.ascontiguousarray(x, np.float32), isa, activation_block=block)


def by_the_rule(x, block):
    """``scale = max|x| / 127``, ``q = rint(x / scale)`` in float32 over each ``block`` inputs; both ``(T, K)``."""
    tokens, cols = x.shape
    padded = np.pad(x, ((0, 0), (0, -cols % block))).reshape(tokens, -1, block)
    scales = np.abs(padded).max(axis=2, keepdims=True) / np.float32(127)
    codes = np.rint(padded / np.where(scales > 0, scales, np.float32(1)))
    scales = np.broadcast_to(scales, codes.shape)
    return tuple(y.reshape(tokens, -1)[:, :cols].astype(np.float32) for y in (scales, codes))


def row(*values, cols=64):
    """One token that begins with ``values``; the rest are zeros."""
    return np.pad(np.array([values], np.float32), ((0, 0), (0, cols - len(values))))


@pytest.mark.parametrize("block", [32, 4096])
@pytest.mark.parametrize("cols", [*range(1, 71, 3), 96, 341, 576, 1024])
def test_codes_follow_the_rule_bit_for_bit(cols, block, isa):
    rng = np.random.default_rng(cols)
    for tokens in TOKENS:
        x = (rng.normal(size=(tokens, cols)) * np.exp(3 * rng.normal(size=(tokens, 1)))).astype(np.float32)
        scales, codes = by_the_rule(x, min(block, cols))
        assert np.array_equal(through_identity(x, isa, block), scales * codes), f"{tokens} tokens"


@pytest.mark.parametrize("block", [32, 4096])
@pytest.mark.parametrize("tokens", TOKENS)
def test_tokens_without_a_scale_or_with_a_tiny_one_leave_the_others_as_they_are(tokens, block, isa):
    """Twelve tokens may be quantized together: one of zeros, one too small for a scale, one whose scale is denormal."""
    rng = np.random.default_rng(tokens)
    x = rng.normal(size=(tokens, 416)).astype(np.float32)
    x[0], x[tokens // 2] = 0, 0
    for at, unit in ((tokens // 3, 2.0**-149), (tokens - 1, 190 * 2.0**-149)):
        x[at] = 0
        x[at, 5], x[at, 6] = unit, -unit
        scales, codes = by_the_rule(x, min(block, 416))
        assert np.array_equal(through_identity(x, isa, block), scales * np.clip(codes, -127, 127))


@pytest.mark.parametrize("block", [32, 64, 128, 256, 4096])
def test_every_block_size_has_its_own_scale(block, isa):
    rng = np.random.default_rng(block)
    x = rng.normal(size=(13, 300)).astype(np.float32) * np.geomspace(1e-3, 1e3, 300, dtype=np.float32)
    for tokens in (1, 13):
        scales, codes = by_the_rule(x[:tokens], min(block, 300))
        assert np.array_equal(through_identity(x[:tokens], isa, block), scales * codes)


def test_every_code_is_within_half_a_step(isa):
    """The quotient is rounded once before it is rounded to a code, so half a step grows by 127 * 2 * 2^-24 at most."""
    x = np.random.default_rng(1).normal(size=(12, 320)).astype(np.float32)
    scales, _ = by_the_rule(x, 32)
    error = np.abs(x - through_identity(x, isa).astype(np.float64))
    # |x - scale q| <= scale (1/2 + 127 u), and scale q itself is rounded: u |scale q| <= 127 u scale
    assert np.all(error <= scales * (0.5 + 254 * 2.0**-24))


@pytest.mark.parametrize("power", [-100, -10, 0, 7, 100])
def test_ties_go_to_the_even_code(power, isa):
    """A largest value of 127 * 2^n makes the scale 2^n, exactly."""
    halves = np.arange(-126.5, 127).astype(np.float32)  # every tie there is
    scale = np.float32(2.0**power)
    for tokens in (1, 13):
        for at in range(0, halves.size, 31):
            x = row(*halves[at : at + 31], cols=31)
            x = np.repeat(np.concatenate([np.array([[127]], np.float32), x], axis=1) * scale, tokens, axis=0)
            assert np.array_equal(through_identity(x, isa), np.rint(x / scale) * scale)
    ties = row(127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5) * scale
    assert np.array_equal(through_identity(ties, isa)[0, :8] / scale, [127, 0, 2, 2, 0, -2, -2, 126])


def test_the_largest_value_is_code_127_on_either_side(isa):
    for size in np.random.default_rng(2).lognormal(0, 20, 50).astype(np.float32):
        got = through_identity(row(size, -size), isa)
        assert np.array_equal(got[0, :2], np.float32([127, -127]) * (size / np.float32(127)))


def test_an_all_zero_block_is_zero_beside_blocks_that_are_not(isa):
    for tokens in TOKENS:
        x = np.random.default_rng(3).normal(size=(tokens, 160)).astype(np.float32)
        x[:, 32:64] = 0
        x[::2, 128:] = -0.0
        got = through_identity(x, isa)
        scales, codes = by_the_rule(x, 32)
        assert np.array_equal(got, scales * codes)
        assert np.all(got[:, 32:64] == 0)
        assert np.all(got[:, :32].any(axis=1))
    assert np.array_equal(through_identity(np.zeros((13, 160)), isa), np.zeros((13, 160)))


def test_a_block_too_small_for_a_scale_is_zero(isa):
    assert np.array_equal(through_identity(row(2.0**-149, -(2.0**-148), 63 * 2.0**-149), isa), np.zeros((1, 64)))


def test_a_denormal_scale_clamps_at_127(isa):
    """190 units of 2^-149 give a scale of 1 unit: 190 / 127 rounded."""
    unit = 2.0**-149
    got = through_identity(row(190 * unit, -190 * unit, 5 * unit), isa)
    assert np.array_equal(got[0, :3].astype(np.float64) / unit, [127, -127, 5])


def test_huge_values_do_not_overflow(isa):
    x = row(3e38, -3e38, 1e38, 1.0)
    scales, codes = by_the_rule(x, 32)
    got = through_identity(x, isa)
    assert np.array_equal(got, scales * codes)
    assert np.all(np.isfinite(got))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_not_hidden_and_stays_with_its_token(bad, isa):
    for at in (0, 5, 31, 40, 69):
        x = np.random.default_rng(4).normal(size=(13, 70)).astype(np.float32)
        clean = through_identity(x, isa)
        x[6, at] = bad
        got = through_identity(x, isa)
        assert np.all(np.isnan(got[6]))
        others = np.arange(13) != 6
        assert np.array_equal(got[others], clean[others])
        assert np.all(np.isnan(through_identity(x[6:7], isa)))


@pytest.mark.parametrize("block", [32, 64, 4096])
@pytest.mark.parametrize("cols", [1, 5, 31, 32, 33, 70, 101, 300])
def test_sums_are_those_of_the_codes(cols, block, isa):
    """Integers with a 127 in every block have a scale of 1: codes are the values, and every sum is exact."""
    fmt = parse("int8z:row")
    ones = np.ones((16, 1), np.float16)
    matrix = core_matrix(from_codes(fmt, np.zeros((16, cols), np.uint8), ones, ones))
    for tokens in TOKENS:
        x = np.random.default_rng(cols).integers(-100, 127, size=(tokens, cols)).astype(np.float32)
        x[:, ::block] = 127
        got = _core.linear(matrix, x, isa, activation_block=block)
        assert np.array_equal(got, np.repeat(x.sum(axis=1, keepdims=True), 16, axis=1))


def with_fixed_scale(x, scale, isa):
    """``scale * q`` of every input with a scale known beforehand."""
    return _core.linear(identity(x.shape[1]), np.ascontiguousarray(x, np.float32), isa, input_scale=scale)


@pytest.mark.parametrize("cols", [1, 31, 64, 341])
def test_codes_of_a_fixed_scale_follow_the_rule_bit_for_bit_and_saturate(cols, isa):
    rng = np.random.default_rng(cols)
    for tokens in TOKENS:
        x = (rng.normal(size=(tokens, cols)) * np.exp(3 * rng.normal(size=(tokens, 1)))).astype(np.float32)
        scale = np.abs(x).max() / np.float32(300)
        codes = np.clip(np.rint(x / scale), -127, 127)
        assert np.array_equal(with_fixed_scale(x, scale, isa), scale * codes)
        assert np.any(np.abs(codes) == 127)


def test_what_is_far_beyond_a_fixed_scale_keeps_its_sign(isa):
    x = row(3e38, -3e38, 1e10, -1e10, 1, 0)
    assert np.array_equal(with_fixed_scale(x, 2.0**-100, isa)[0, :6], np.float32([127, -127] * 2 + [127, 0]) / 2**100)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_fixed_scale_hides_nothing_that_is_not_finite(bad, isa):
    for tokens in (1, 13):
        x = np.ones((tokens, 64), np.float32)
        x[0, 5] = bad
        got = with_fixed_scale(x, 0.01, isa)
        assert np.all(np.isnan(got[0]))
        assert np.array_equal(got[1:], np.full((tokens - 1, 64), np.float32(0.01) * 100))


@pytest.mark.parametrize("scale", [-1.0, np.nan, np.inf, 1e-40, 3e38])
def test_a_fixed_scale_that_is_no_positive_number_is_refused(scale):
    with pytest.raises(ValueError, match="no positive number"):
        with_fixed_scale(np.ones((1, 64), np.float32), scale, "scalar")


@pytest.mark.parametrize("block", [0, -32, 16, 33, 2**31 + 1])
def test_a_block_that_is_no_multiple_of_32_is_refused(block):
    with pytest.raises(ValueError, match="multiple of 32"):
        _core.linear(identity(64), np.ones((1, 64), np.float32), "scalar", activation_block=block)


@pytest.mark.parametrize("name", ["int8:row", "int4:g32", "int3:g64", "ternary", "int4z:g128", "binary"])
@pytest.mark.parametrize("block", [64, 192, 512, 4096])
def test_blocks_larger_than_groups_are_within_the_bound(name, block, isa):
    """Also no power of two, and rows longer than a panel of the many-token products.

    A product sums codes exactly, then scales and adds at most two numbers per 32 inputs, in any order. Codes are as
    far from zero as the offset that is taken from them: no part is more than twice the largest weight.
    """
    rng = np.random.default_rng(block)
    for cols in (576, 5184):
        matrix = rtn.quantize(rng.normal(size=(32, cols)).astype(np.float32), parse(name))
        w = matrix.dequantize().astype(np.float64)
        for tokens in (1, 13):
            x = rng.normal(size=(tokens, cols)).astype(np.float32)
            scales, codes = by_the_rule(x, min(block, cols))
            decoded = scales.astype(np.float64) * codes
            got = _core.linear(core_matrix(matrix), x, isa, activation_block=block)
            n = 2 * cols // 32 + 4
            size = 2 * np.abs(w).max() * np.abs(decoded).sum(axis=1, keepdims=True)
            assert np.all(np.abs(got - decoded @ w.T) <= n * 2.0**-24 / (1 - n * 2.0**-24) * size), (cols, tokens)
