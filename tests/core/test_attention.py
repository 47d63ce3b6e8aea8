"""Attention of every instruction set against a float64 softmax, within the bound of core/kernels/simd/attention.inl.

Keys and values are rounded to what the cache holds in NumPy first (cache_oracle.py), so what is left to bound is
float32 arithmetic alone.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from cache_oracle import KINDS, cached

from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.program import Program
from scrimp.tensors import from_floats

UNIT = 2.0**-24
BLOCK = 64  # positions per step of the online softmax
CONTEXT = 540
STARTS, LENGTHS = (0, 1, 63, 64, 65, 500), (1, 2, 17, 40)
CHECKED = np.concatenate([np.arange(105), np.arange(500, CONTEXT)])  # every position they reach
HEAD_DIMS = (4, 8, 16, 20, 64, 80, 128)


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


@dataclass(frozen=True)
class Shape:
    head_dim: int
    share: int = 1  # query heads per key head
    kv_heads: int = 2
    window: int = 0
    causal: bool = True
    softcap: float = 0.0

    @property
    def heads(self):
        return self.share * self.kv_heads

    @property
    def scale(self):
        return float(np.float32(self.head_dim**-0.5))


def attention_engine(shape, isa, *, kv="f16", threads=1):
    """A Program of one attention: buffers 0, 1, 2 are q, k, v, buffer 3 is the output; no embedding is ever run."""
    sides = {"query": (1, shape.heads * shape.head_dim), "key": (1, shape.kv_heads * shape.head_dim)}
    program = Program(sides, {})
    q, k, v = (program.embed(name) for name in ("query", "key", "key"))
    program.attention(q, k, v, heads=shape.heads, kv_heads=shape.kv_heads, scale=shape.scale, window=shape.window,
                      causal=shape.causal, softcap=shape.softcap)  # fmt: skip
    program.output = program.embed("query").index
    tables = {name: from_floats(parse("f32"), np.zeros(side, np.float32)) for name, side in sides.items()}
    return Engine(program, tables, {}, context=CONTEXT, threads=threads, isa=isa, kv=kv, chunk=128)


def attend(engine, qkv, start, count):
    """Run tokens ``start .. start + count`` of a sequence: their keys join the cache; returns (count, H*D)."""
    given = {buffer: rows[start : start + count] for buffer, rows in enumerate(qkv)}
    return engine.run(np.zeros(count, np.int32), start, 3, 4, inputs=given, outputs=[3])[3]


def in_pieces(engine, qkv, begin, end, piece):
    return np.concatenate([attend(engine, qkv, at, min(piece, end - at)) for at in range(begin, end, piece)])


def sequence(shape, length, seed=0):
    """Random q (length, H*D), k and v (length, KV*D), with scores wide enough that peaks move from block to block."""
    rng = np.random.default_rng([seed, shape.head_dim, shape.share])
    widths = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim)
    q, k, v = (rng.normal(size=(length, width)).astype(np.float32) for width in widths)
    return q * np.float32(2), k, v + np.float32(0.5)


def exact_and_bound(shape, qkv, positions, kv="f16"):
    """softmax(scale q k^T) v in float64 for the queries at ``positions``, and how far float32 may be from it.

    With u = 2^-24, a query that sees n positions in b = ceil(n / 64) blocks, and v rounded as stored:

    1. A score is one product (scale * q) and D fused multiply-adds: |s' - s| <= e = gamma(D + 1) scale |q|.|k|.
    2. A weight is exp'(s' - peak'), later multiplied by one exp'(old - new peak) for every new peak. Any common factor
       cancels in o / l, so weights are compared with exp(s - M), M the last computed peak. All exponents of one weight
       have one sign and add up to s' - M; rounding these differences moves the exponent by at most u |s' - M|, and
       |s' - M| <= |s - max s| + e + max e. exp' is within 2 ulp <= 4u (simd/exp.inl), at most b times.
    3. o adds 64 fused products and, per block, one product and one addition; l no more, in lanes that are added at the
       end. One division ends it.

    So numerator and denominator hold every weight w with a factor within 1 +- r,
    r = exp(e + u (|s - max s| + e + max e) + gamma(6 b + 65)) - 1, and

        |o' / l' - o / l| <= (sum w r |v| + |o / l| sum w r) / (1 - sum w r).

    A window takes positions away, a cap bends scores (adding 9 u cap to e, its slope is at most 1), and what is not
    causal sees all positions.

    Below the normal range each of the fewer than 2^9 roundings of a weight adds up to 2^-149 instead; l' >= 1.
    """
    at = np.asarray(positions)
    length = at.max() + 1
    q = qkv[0][at].astype(np.float64).reshape(at.size, shape.kv_heads, shape.share, -1).transpose(1, 2, 0, 3)
    k, v = (
        cached(x[:length], kv, shape.head_dim).astype(np.float64).reshape(length, shape.kv_heads, 1, -1)
        .transpose(1, 2, 0, 3) for x in qkv[1:]
    )  # fmt: skip
    behind = at[:, None] - np.arange(length)
    seen = (behind >= 0) & (behind < (shape.window or length)) if shape.causal else np.ones_like(behind, bool)
    s = shape.scale * (q @ k.swapaxes(2, 3))
    e = np.where(seen, gamma(shape.head_dim + 1) * shape.scale * (np.abs(q) @ np.abs(k).swapaxes(2, 3)), 0)
    if cap := shape.softcap:
        s, e = cap * np.tanh(s / cap), e + 9 * UNIT * cap
    s = np.where(seen, s, -np.inf)
    below = np.where(seen, s.max(axis=3, keepdims=True) - s, 0)
    w = np.where(seen, np.exp(-below), 0)
    w /= w.sum(axis=3, keepdims=True)
    blocks = (at // BLOCK + 1)[:, None]
    wr = w * np.expm1(e + UNIT * (below + e + e.max(axis=3, keepdims=True)) + gamma(6 * blocks + 65))
    lost = wr.sum(axis=3, keepdims=True)
    assert lost.max() < 0.5, "the bound says nothing"
    out = w @ v
    bound = (wr @ np.abs(v) + np.abs(out) * lost) / (1 - lost) + length * (1 + np.abs(v).max()) * 2.0**-140
    return tuple(x.transpose(2, 0, 1, 3).reshape(at.size, -1) for x in (out, bound))


@cache  # the same for every instruction set
def long_sequence(shape, kv):
    qkv = sequence(shape, CONTEXT)
    return qkv, *exact_and_bound(shape, qkv, CHECKED, kv)


@pytest.mark.parametrize(
    ("head_dim", "share", "kv"),
    [(head_dim, share, "f16") for head_dim in HEAD_DIMS for share in (1, 3, 8)]
    + [(head_dim, 3, kv) for kv in KINDS[1:] for head_dim in HEAD_DIMS],
)
def test_attention_is_within_the_bound(head_dim, share, kv, isa):
    shape = Shape(head_dim, share, kv_heads=1 if share == 8 else 2)
    qkv, exact, bound = long_sequence(shape, kv)
    engine = attention_engine(shape, isa, kv=kv)
    filled = 0
    for start in STARTS:
        if filled < start:
            in_pieces(engine, qkv, filled, start, 100)
        for count in LENGTHS:
            rows = np.searchsorted(CHECKED, start) + np.arange(count)
            error = np.abs(attend(engine, qkv, start, count) - exact[rows])
            assert np.all(error <= bound[rows]), f"{count} tokens at {start}: {np.max(error / bound[rows]):.2f} bounds"
        filled = start + max(LENGTHS)


@pytest.mark.parametrize("shape", [Shape(20, 3), Shape(64, 8), Shape(128, 1)], ids=str)
@pytest.mark.parametrize("kv", KINDS)
def test_prefill_equals_token_by_token_bit_for_bit(shape, kv, isa):
    qkv = sequence(shape, 100)
    one_by_one = in_pieces(attention_engine(shape, isa, kv=kv), qkv, 0, 100, 1)
    for piece, threads in ((100, 1), (2, 1), (17, 1), (40, 2), (100, 3)):
        engine = attention_engine(shape, isa, kv=kv, threads=threads)
        assert np.array_equal(in_pieces(engine, qkv, 0, 100, piece), one_by_one), f"{piece} at a time on {threads}"


def test_the_first_token_sees_its_own_value_and_nothing_else(isa):
    """One weight, exp(0) = 1: the output is the stored value itself, for every query head of the key head."""
    shape = Shape(20, 3)
    q, k, v = sequence(shape, 1)
    own = v.astype(np.float16).astype(np.float32).reshape(shape.kv_heads, 1, shape.head_dim)
    expected = np.repeat(own, shape.share, axis=1).reshape(1, -1)
    assert np.array_equal(attend(attention_engine(shape, isa), (q, k, v), 0, 1), expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_extreme_scores_do_not_overflow(sign, isa):
    """Scores of about +-1e4: the largest rises from block to block, falls, or all are far below zero."""
    shape = Shape(64, 2, kv_heads=1)
    q, k, v = sequence(shape, 80)
    q, k = np.full_like(q, np.sqrt(1e4 / 8)), np.full_like(k, sign * np.sqrt(1e4 / 8))
    sizes = {"level": np.ones(80), "rising": np.linspace(0, 1, 80), "falling": np.linspace(1, 0, 80),
             "both signs": np.cos(np.arange(80.0))}  # fmt: skip
    for name, size in sizes.items():
        qkv = q, k * size[:, None].astype(np.float32), v
        exact, bound = exact_and_bound(shape, qkv, np.arange(80))
        for piece in (1, 100):
            got = in_pieces(attention_engine(shape, isa), qkv, 0, 80, piece)
            assert np.all(np.abs(got - exact) <= bound), name


def test_equal_scores_average_the_values(isa):
    shape = Shape(16, 1)
    q, k, v = sequence(shape, 70)
    got = attend(attention_engine(shape, isa), (np.zeros_like(q), k, v), 0, 70)
    stored = v.astype(np.float16).astype(np.float64)
    mean = np.cumsum(stored, axis=0) / np.arange(1, 71)[:, None]
    size = np.cumsum(np.abs(stored), axis=0) / np.arange(1, 71)[:, None]
    # 32 fused products, an addition per block, the division; weights and their sum are exact
    assert np.all(np.abs(got - mean) <= gamma(32 + 3 + 1) * size)


@pytest.mark.parametrize("changed", [1, 15, 31, 32, 33, 47])
def test_later_keys_and_values_change_no_earlier_bit(changed, isa):
    shape = Shape(20, 8, kv_heads=1)
    q, k, v = sequence(shape, 60)
    before = attend(attention_engine(shape, isa), (q, k, v), 0, 60)
    k, v = k.copy(), v.copy()
    k[changed:] *= -60
    v[changed:] = 6e4
    after = attend(attention_engine(shape, isa), (q, k, v), 0, 60)
    assert np.array_equal(after[:changed], before[:changed])
    assert np.all(np.any(after[changed:] != before[changed:], axis=1))


@pytest.mark.parametrize("kv", KINDS)
def test_what_an_earlier_run_left_behind_is_never_read(kv, isa):
    """The cache past the last token holds NaN: the next positions of a sequence that was rewound."""
    shape = Shape(20, 3)
    qkv = sequence(shape, 100)
    clean = in_pieces(attention_engine(shape, isa, kv=kv), qkv, 0, 100, 7)
    engine = attention_engine(shape, isa, kv=kv)
    in_pieces(engine, tuple(np.full_like(x, np.nan) for x in qkv), 0, 100, 50)
    assert np.array_equal(in_pieces(engine, qkv, 0, 100, 7), clean)
    assert np.all(np.isfinite(clean))


WINDOWS = (1, 2, 31, 32, 33, 64, 100)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_is_within_the_bound(window, isa):
    shape = Shape(20, 3, window=window)
    qkv = sequence(shape, 200)
    exact, bound = exact_and_bound(shape, qkv, np.arange(200))
    for piece in (1, 7, 120):
        error = np.abs(in_pieces(attention_engine(shape, isa), qkv, 0, 200, piece) - exact)
        assert np.all(error <= bound), f"{piece} at a time: {np.max(error / bound):.2f} bounds"


@pytest.mark.parametrize("window", WINDOWS)
def test_a_window_has_the_same_bits_however_queries_are_split(window, isa):
    shape = Shape(64, 8, kv_heads=1, window=window, softcap=4.0)
    qkv = sequence(shape, 150)
    one_by_one = in_pieces(attention_engine(shape, isa), qkv, 0, 150, 1)
    for piece, threads in ((120, 1), (17, 2), (40, 3)):
        engine = attention_engine(shape, isa, threads=threads)
        assert np.array_equal(in_pieces(engine, qkv, 0, 150, piece), one_by_one), f"{piece} at a time on {threads}"


@pytest.mark.parametrize("window", [1, 32, 50])
def test_what_left_the_window_changes_no_bit(window, isa):
    shape = Shape(20, 2, window=window)
    q, k, v = sequence(shape, 120)
    before = in_pieces(attention_engine(shape, isa), (q, k, v), 0, 120, 50)
    k, v = k.copy(), v.copy()
    k[:10] *= -60
    v[:10] = 6e4
    after = in_pieces(attention_engine(shape, isa), (q, k, v), 0, 120, 50)
    assert np.array_equal(after[10 + window - 1 :], before[10 + window - 1 :])
    assert np.any(after[10 + window - 2] != before[10 + window - 2])


def test_a_window_wider_than_the_text_is_none(isa):
    qkv = sequence(Shape(20, 3), 100)
    plain = in_pieces(attention_engine(Shape(20, 3), isa), qkv, 0, 100, 33)
    assert np.array_equal(in_pieces(attention_engine(Shape(20, 3, window=100), isa), qkv, 0, 100, 33), plain)


@pytest.mark.parametrize("softcap", [0.7, 5.0, 50.0])
def test_capped_scores_are_within_the_bound(softcap, isa):
    shape = Shape(64, 2, softcap=softcap)
    qkv = sequence(shape, 90)
    exact, bound = exact_and_bound(shape, qkv, np.arange(90))
    error = np.abs(in_pieces(attention_engine(shape, isa), qkv, 0, 90, 50) - exact)
    assert np.all(error <= bound), f"{np.max(error / bound):.2f} bounds"


@pytest.mark.parametrize("length", [1, 16, 17, 31, 32, 33, 120])
def test_a_whole_text_is_within_the_bound(length, isa):
    """Every token sees all tokens, whichever thread and strip it falls to."""
    shape = Shape(32, 3, causal=False)
    qkv = sequence(shape, length)
    exact, bound = exact_and_bound(shape, qkv, np.arange(length))
    one = attend(attention_engine(shape, isa), qkv, 0, length)
    assert np.all(np.abs(one - exact) <= bound)
    assert np.array_equal(attend(attention_engine(shape, isa, threads=3), qkv, 0, length), one)
