"""The model of the coder: what it promises is what is written, and that is the entropy of the codes and little more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrimp import _core
from scrimp.formats import contexts, frequencies

U8 = NDArray[np.uint8]


@given(st.lists(st.integers(0, frequencies.HIGHEST), min_size=1, max_size=256).filter(any))
def test_any_stored_table_fills_the_range(stored: list[int]) -> None:
    table = np.array([stored], np.uint8)
    found = frequencies.frequencies(table)[0].astype(int)
    assert found.sum() == frequencies.RANGE
    assert ((found > 0) == (table[0] > 0)).all()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=256).filter(any))
def test_counts_become_frequencies_within_a_sixteenth_of_an_octave(counts: list[int]) -> None:
    exact = np.array(counts) / sum(counts) * frequencies.RANGE
    found = frequencies.frequencies(frequencies.stored(np.array([counts])))[0]
    # One of 2^14 is given to each that occurs, and what rounding leaves goes to the heaviest, so that the sum is off by
    # a sixteenth of an octave both ways at most, and each frequency by one sixteenth more.
    often = exact >= 256
    rare = (exact > 0).sum() / frequencies.RANGE
    assert (np.abs(np.log2(found[often] / exact[often])) <= 2 / 16 + 2 * rare + 1 / 64).all() or often.sum() == 1
    assert (found[exact > 0] >= 1).all()
    assert (found[exact == 0] == 0).all()


def spread_codes(rows: int, cols: int, levels: int, std: float, uneven: float, seed: int = 0) -> U8:
    """Rounded normal numbers whose spread is a row's times a column's; ``uneven`` is that of its log2."""
    generator = np.random.default_rng(seed)
    by_row, by_col = (np.exp2(generator.standard_normal(side) * uneven) for side in (rows, cols))
    numbers = generator.standard_normal((rows, cols)) * std * by_row[:, None] * by_col
    return np.clip(np.rint(numbers + levels // 2), 0, levels - 1).astype(np.uint8)


def written_bits(codes: U8, found: contexts.Contexts) -> int:
    stream, ends = _core.rans_encode(codes, found.row_class, found.col_class, found.tables, found.frequencies,
                                     contexts.segment_rows(*codes.shape))  # fmt: skip
    return 8 * (len(stream) + len(found.side()) + 3 * len(ends))


CASES = [(16, 2.5, 0.0), (16, 2.0, 0.7), (64, 6.0, 0.5), (256, 6.0, 0.7), (256, 40.0, 0.0), (3, 0.6, 0.0),
         (4, 0.9, 0.3), (2, 0.5, 0.0)]  # fmt: skip


@pytest.mark.parametrize(("levels", "std", "uneven"), CASES)
@pytest.mark.parametrize("shape", [(576, 576), (192, 576), (1536, 300)])
def test_the_estimate_is_what_is_written_within_half_a_percent(
    shape: tuple[int, int], levels: int, std: float, uneven: float
) -> None:
    codes = spread_codes(*shape, levels, std, uneven)
    written = written_bits(codes, contexts.choose(codes, levels))
    assert abs(contexts.coded_bits(codes, levels) - written) <= 0.005 * written


@pytest.mark.parametrize(("levels", "std", "uneven"), CASES)
def test_the_length_is_the_conditional_entropy_and_the_tables_within_one_percent(
    levels: int, std: float, uneven: float
) -> None:
    codes = spread_codes(576, 576, levels, std, uneven)
    found = contexts.choose(codes, levels)
    tables = found.tables[(found.row_class[:, None].astype(int) + found.col_class) * (len(found.tables) > 1)]
    entropy = 0.0
    for table in np.unique(tables):
        counts = np.bincount(codes[tables == table])
        counts = counts[counts > 0]
        entropy -= float((counts * np.log2(counts / counts.sum())).sum())
    assert entropy <= written_bits(codes, found) <= 1.01 * entropy + 8 * len(found.side())


def test_uneven_rows_and_columns_are_worth_their_classes() -> None:
    """Codes with spreads r·c: within 1 % of what a coder pays that knows every r and c (and rounds nothing)."""
    rows = cols = 1024
    generator = np.random.default_rng(1)
    by_row, by_col = (np.exp2(generator.standard_normal(side) * 0.7) for side in (rows, cols))
    std = 6.0 * by_row[:, None] * by_col
    codes = np.clip(np.rint(generator.standard_normal((rows, cols)) * std + 128), 0, 255).astype(np.uint8)
    from math import erf

    edges = (np.arange(257) - 128.5)[:, None]
    known = 0.0
    quantized = np.exp2(np.rint(np.log2(std) * 64) / 64)  # 1/64 octave: 0.0001 bits away from knowing it
    for value in np.unique(quantized):
        cumulative = np.array([0.5 * (1 + erf(edge / value / 2**0.5)) for edge in edges[:, 0]])
        cumulative[0], cumulative[-1] = 0.0, 1.0
        chances = np.maximum(np.diff(cumulative), 1e-300)
        known -= float(np.log2(chances[codes[quantized == value]]).sum())
    found = contexts.choose(codes, 256)
    counts = np.bincount(codes.reshape(-1))
    flat = -float((counts[counts > 0] * np.log2(counts[counts > 0] / codes.size)).sum())
    assert known <= written_bits(codes, found) <= 1.01 * known
    assert known < 0.95 * flat, "these codes were made to be uneven"


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_even_codes_get_one_table_and_no_classes(levels: int) -> None:
    codes = np.random.default_rng(0).integers(0, levels, (256, 512)).astype(np.uint8)
    found = contexts.choose(codes, levels)
    assert len(found.stored) == 1
    assert not found.row_class.any()
    assert not found.col_class.any()


@pytest.mark.parametrize("codes", [
    np.zeros((16, 64), np.uint8), np.full((1, 1), 255, np.uint8), np.eye(40, 70, dtype=np.uint8),
    np.tile(np.uint8([0, 255]), (5, 40)), np.repeat(np.arange(200, dtype=np.uint8)[:, None], 30, axis=1),
], ids=["zeros", "one code", "a diagonal", "extremes", "constant rows"])  # fmt: skip
def test_odd_matrices_are_coded_too(codes: U8) -> None:
    found = contexts.choose(codes, 256)
    segment = contexts.segment_rows(*codes.shape)
    arguments = (found.row_class, found.col_class, found.tables, found.frequencies, segment)
    stream, ends = _core.rans_encode(codes, *arguments)
    plane = _core.rans_decode(stream, ends, codes.shape, *arguments, (8,))[0]
    assert (plane == _core.pack_codes(codes, (8,))[0]).all()


def test_a_sample_of_rows_stands_for_the_matrix() -> None:
    codes = spread_codes(4096, 512, 16, 2.0, 0.4)
    whole = contexts.coded_bits(codes, 16)
    sample = contexts.coded_bits(np.ascontiguousarray(codes[::8]), 16, rows=4096)
    # 512 of 4,096 rows whose own bits have this standard deviation
    each = np.array([contexts.coded_bits(np.ascontiguousarray(codes[at : at + 64]), 16) for at in range(0, 4096, 64)])
    assert abs(sample - whole) <= 4 * each.std() * 64 / 8**0.5 + 0.005 * whole


def test_what_codes_mean_matters_where_their_order_says_nothing() -> None:
    """Sign and magnitude: the spread of a row is that of its numbers."""
    codes = spread_codes(512, 512, 16, 2.0, 0.7)
    numbers = np.arange(16) - 8.0
    mixed = np.random.default_rng(3).permutation(16).astype(np.uint8)
    told = np.empty(16)
    told[mixed] = numbers
    straight = contexts.choose(codes, 16, numbers)
    through = contexts.choose(mixed[codes], 16, told)
    assert np.isclose(straight.code_bits, through.code_bits, rtol=1e-3, atol=0)


def test_scales_are_counted_by_their_bytes() -> None:
    scales = np.exp2(np.random.default_rng(0).standard_normal((64, 20, 16)) * 0.3).astype(np.float16)
    entropies = []
    for shift in (8, 0):
        counts = np.bincount((scales.view(np.uint16) >> shift & 255).reshape(-1))
        entropies.append(-float((counts[counts > 0] * np.log2(counts[counts > 0] / scales.size)).sum()))
    high, low = entropies
    side = 8 * (4 + 2 * 256) + contexts.overhead_bits(16, scales.size // 16)
    assert high < 0.5 * low
    assert high + low <= contexts.number_bits(scales) <= 1.01 * high + 8 * scales.size + side
