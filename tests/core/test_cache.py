"""Keys and values as codes: bit for bit by the NumPy rule, and what is odd about numbers that have none.

The first token attends to itself alone with a weight of exactly 1: its output is its own value as the cache has it.
"""

import numpy as np
import pytest
from cache_oracle import LIMITS, cached, scales_and_codes
from test_attention import HEAD_DIMS, Shape, attend, attention_engine, in_pieces, sequence

CODED = tuple(LIMITS)


def through_cache(values, kv, shape, isa):
    """Each row of ``values (T, KV * D)`` as the value of a first token."""
    engine = attention_engine(shape, isa, kv=kv)
    q, k, _ = sequence(shape, 1)
    with np.errstate(invalid="ignore"):
        return np.concatenate([attend(engine, (q, k, row[None]), 0, 1) for row in values])


def spread(shape, rows, seed):
    """Numbers whose blocks differ in size by many powers of two."""
    rng = np.random.default_rng([seed, shape.head_dim])
    size = np.exp2(rng.uniform(-22, 15, (rows, shape.kv_heads * shape.head_dim // 4)))
    return (rng.normal(size=(rows, shape.kv_heads * shape.head_dim)) * np.repeat(size, 4, axis=1)).astype(np.float32)


@pytest.mark.parametrize("kv", CODED)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_codes_and_scales_follow_the_rule_bit_for_bit(head_dim, kv, isa):
    shape = Shape(head_dim)
    values = spread(shape, 40, seed=1)
    assert np.array_equal(through_cache(values, kv, shape, isa), cached(values, kv, head_dim))


@pytest.mark.parametrize("kv", CODED)
def test_every_number_is_within_half_a_step(kv, isa):
    """|x - scale q| <= scale (1/2 + limit u) from rounding x / scale, and where the limit clips, what float16 took from
    the scale: at most its half unit, 2^-11 relative or 2^-25, times the limit."""
    shape = Shape(64)
    values = spread(shape, 40, seed=2)
    scales, _ = scales_and_codes(values, kv, 64)
    limit = LIMITS[kv]
    half_unit = np.maximum(scales * 2.0**-11, 2.0**-25)
    error = np.abs(values - through_cache(values, kv, shape, isa).astype(np.float64))
    assert np.all(error <= scales * (0.5 + limit * 2.0**-24) + np.where(scales < 2.0**-14, limit * half_unit, 0))


@pytest.mark.parametrize("kv", CODED)
def test_ties_go_to_the_even_code(kv, isa):
    """A largest number of limit * 2^n makes the scale 2^n, exactly."""
    limit, shape = LIMITS[kv], Shape(32, kv_heads=1)
    for power in (-14, 0, 8):
        halves = np.arange(-limit + 0.5, limit).astype(np.float32)
        for at in range(0, halves.size, 31):
            row = np.pad(halves[at : at + 31], (1, max(0, at + 31 - halves.size)), constant_values=0)[:32]
            row[0] = limit
            got = through_cache(row[None] * np.float32(2.0**power), kv, shape, isa)
            assert np.array_equal(got, np.rint(row)[None] * np.float32(2.0**power))


@pytest.mark.parametrize("kv", CODED)
def test_zeros_and_what_is_too_small_for_a_scale_are_zero(kv, isa):
    shape = Shape(64, kv_heads=1)
    values = np.zeros((3, 64), np.float32)
    values[1] = 2.0**-24
    values[2, 32:] = 1
    got = through_cache(values, kv, shape, isa)
    assert np.array_equal(got, np.where(values < 0.5, 0, got))
    assert np.all(got[2, 32:] > 0.99)


@pytest.mark.parametrize("kv", CODED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_not_hidden(bad, kv, isa):
    """In a value: all that its block gives is NaN; in a key: all that looks at it. Other heads know nothing of it."""
    shape = Shape(64)
    q, k, v = sequence(shape, 40)
    clean = in_pieces(attention_engine(shape, isa, kv=kv), (q, k, v), 0, 40, 40)
    for place in (1, 2):
        qkv = [q.copy(), k.copy(), v.copy()]
        qkv[place][10, 3] = bad
        got = in_pieces(attention_engine(shape, isa, kv=kv), tuple(qkv), 0, 40, 10)
        seen = slice(None, 64 if place == 1 else 32)
        assert np.all(np.isnan(got[10:, seen])), "hidden"
        assert np.array_equal(got[:10], clean[:10])
        assert np.array_equal(got[:, 64:], clean[:, 64:])
