"""The coder against a decoder of a few lines of Python, and against streams that no encoder writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrimp import _core

RANGE = 1 << _core.RANGE_BITS
LOW = 1 << 16
U8 = NDArray[np.uint8]


def evenly(tables: int, levels: int, seed: int = 0) -> NDArray[np.uint16]:
    """Frequencies of random sizes, none 0, that sum to the range."""
    generator = np.random.default_rng(seed)
    cuts = np.sort(
        np.stack([generator.choice(RANGE - 1, levels - 1, replace=False) + 1 for _ in range(tables)]), axis=1
    )
    return np.diff(cuts, prepend=0, append=RANGE).astype(np.uint16)


def decoded_slowly(
    stream: bytes, rows: int, cols: int, tables: NDArray[np.intp], frequencies: NDArray[np.uint16]
) -> U8:
    """One segment by the definition in core/coding/rans.h; ``tables (rows, cols)`` tells the table of each code."""
    lanes = min(16, rows)
    states = [int.from_bytes(stream[4 * lane : 4 * lane + 4], "little") for lane in range(lanes)]
    at = 4 * lanes
    codes = np.zeros((rows, cols), np.uint8)
    for tile in range(0, rows, 16):
        for col in range(cols):
            for lane in range(min(16, rows - tile)):
                frequency = frequencies[tables[tile + lane, col]].astype(int).tolist()
                slot, starts = states[lane] % RANGE, [sum(frequency[:i]) for i in range(len(frequency) + 1)]
                symbol = next(i for i in range(len(frequency)) if starts[i] <= slot < starts[i + 1])
                x = frequency[symbol] * (states[lane] // RANGE) + slot - starts[symbol]
                if x < LOW:
                    x, at = x * LOW + int.from_bytes(stream[at : at + 2], "little"), at + 2
                states[lane] = x
                codes[tile + lane, col] = symbol
    assert at == len(stream)
    assert states == [LOW] * lanes
    return codes


def matrix(rows: int, cols: int, levels: int, classes: int = 1, seed: int = 0) -> tuple[U8, U8, U8]:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, levels, (rows, cols)).astype(np.uint8)
    row_class = generator.integers(0, (classes + 1) // 2, rows).astype(np.uint8)
    return codes, row_class, generator.integers(0, classes // 2 + 1 if classes > 1 else 1, cols).astype(np.uint8)


@pytest.mark.parametrize(("rows", "cols", "levels", "classes"), [
    (1, 1, 2, 1), (3, 7, 3, 1), (16, 21, 16, 1), (19, 33, 16, 4), (37, 10, 256, 3), (32, 40, 5, 7), (16, 5, 1, 1),
])  # fmt: skip
def test_the_definition_decodes_what_the_core_encodes(rows: int, cols: int, levels: int, classes: int) -> None:
    codes, row_class, col_class = matrix(rows, cols, levels, classes)
    frequencies, tables = evenly(classes, levels), np.arange(classes, dtype=np.uint8)
    whole = -(-rows // 16) * 16
    stream, ends = _core.rans_encode(codes, row_class, col_class, tables, frequencies, whole)
    assert ends == [len(stream)]
    of_each = tables[row_class[:, None].astype(int) + col_class].astype(np.intp)
    assert (decoded_slowly(stream.tobytes(), rows, cols, of_each, frequencies) == codes).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("widths", [(4,), (8,), (2, 1), (4, 2), (0,), (1,), ()])
@pytest.mark.parametrize("shape", [(1, 1), (15, 3), (16, 64), (50, 67), (70, 21)])
def test_decoding_packs_planes_as_the_packer_does(
    widths: tuple[int, ...], shape: tuple[int, int], threads: int
) -> None:
    levels = 3 if widths == (0,) else min(2 ** sum(widths or (8,)), 200)
    codes, row_class, col_class = matrix(*shape, levels, 3)
    arguments = (row_class, col_class, np.array([1, 0, 1], np.uint8), evenly(2, levels), 16)
    stream, ends = _core.rans_encode(codes, *arguments, threads)
    planes = _core.rans_decode(stream, ends, shape, *arguments, widths, threads)
    if widths:
        expected = _core.pack_codes(codes, widths)
        assert len(planes) == len(expected)
        assert all((plane == right).all() for plane, right in zip(planes, expected, strict=True))
    else:
        padded = np.pad(codes, ((0, -shape[0] % 16), (0, 0))).reshape(-1, 16, shape[1]).transpose(0, 2, 1)
        assert (planes[0] == padded).all()


def test_threads_change_no_byte() -> None:
    codes, row_class, col_class = matrix(200, 100, 16, 3)
    arguments = (row_class, col_class, np.arange(3, dtype=np.uint8), evenly(3, 16), 32)
    one, two = (_core.rans_encode(codes, *arguments, threads) for threads in (1, 4))
    assert (one[0] == two[0]).all()
    assert one[1] == two[1]


def good() -> tuple[NDArray[np.uint8], list[int], tuple[U8, U8, U8, NDArray[np.uint16], int], U8]:
    codes, row_class, col_class = matrix(40, 30, 16, 3, seed=5)
    arguments = (row_class, col_class, np.arange(3, dtype=np.uint8), evenly(3, 16), 16)
    stream, ends = _core.rans_encode(codes, *arguments)
    return stream, ends, arguments, _core.pack_codes(codes, (4,))[0]


STREAM, ENDS, ARGUMENTS, PLANE = good()


def test_every_truncation_is_malformed() -> None:
    for size in range(ENDS[-1]):
        with pytest.raises(ValueError, match=r"segment|state"):
            _core.rans_decode(STREAM[:size], [min(end, size) for end in ENDS], (40, 30), *ARGUMENTS, (4,))


def test_every_flipped_bit_of_this_stream_is_malformed() -> None:
    """A lane that went astray ends in the right state by chance only: one time in 65,536. (A checksum beside the stream
    finds those.)"""
    for at in range(8 * len(STREAM)):
        damaged = STREAM.copy()
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(ValueError, match=r"segment|state"):
            _core.rans_decode(damaged, ENDS, (40, 30), *ARGUMENTS, (4,))


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=2000), cut=st.lists(st.integers(0, 2000), min_size=2, max_size=2))
def test_noise_never_crashes(data: bytes, cut: list[int]) -> None:
    stream = np.frombuffer(data, np.uint8)
    ends = sorted([*(min(at, len(data)) for at in cut), len(data)])
    try:
        planes = _core.rans_decode(stream, ends, (40, 30), *ARGUMENTS, (4,))
    except ValueError:
        return
    codes = _core.unpack_codes(planes, (4,), (40, 30))  # it decodes to something: then that encodes to the same
    again, _ = _core.rans_encode(codes, *ARGUMENTS)
    assert again.tobytes() == data


@pytest.mark.parametrize(("change", "message"), [
    ({"ends": [10, 5, len(STREAM)]}, "one after the other"),
    ({"ends": [-1, 5, len(STREAM)]}, "one after the other"),
    ({"ends": ENDS[:-1]}, "segments are missing"),
    ({"ends": [*ENDS[:-1], ENDS[-1] + 2]}, "one after the other"),
    ({"shape": (40, 31)}, "a class per row"),
    ({"shape": (0, 30)}, "sides out of range"),
    ({"shape": (2**45, 30)}, "sides out of range"),
    ({"row_class": np.full(40, 200, np.uint8)}, "a class has no table"),
    ({"tables": np.array([0, 1, 3], np.uint8)}, "no such table"),
    ({"tables": np.array([], np.uint8)}, "a class has no table"),
    ({"frequencies": evenly(3, 16) // 2}, "do not fill"),
    ({"frequencies": np.full((3, 16), 2000, np.uint16)}, "exceed"),
    ({"frequencies": np.full((3, 16), 65535, np.uint16)}, "exceed"),
    ({"segment_rows": 15}, "whole tiles"),
    ({"segment_rows": 0}, "whole tiles"),
    ({"widths": (3,)}, "no such plane"),
    ({"threads": 0}, "threads out of range"),
])  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    names = ("row_class", "col_class", "tables", "frequencies", "segment_rows")
    arguments = {"stream": STREAM, "ends": ENDS, "shape": (40, 30), **dict(zip(names, ARGUMENTS, strict=True)),
                 "widths": (4,)}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        _core.rans_decode(**{**arguments, **change})  # type: ignore[arg-type]


def test_a_code_without_a_frequency_is_not_encoded_into_a_lie() -> None:
    frequencies = evenly(1, 4)
    codes = np.full((16, 4), 9, np.uint8)
    none = np.zeros(16, np.uint8), np.zeros(4, np.uint8), np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match="no frequency"):
        _core.rans_encode(codes, *none, frequencies, 16)


def test_counts_and_spreads_are_those_of_numpy() -> None:
    codes, row_class, col_class = matrix(33, 47, 16, 5, seed=2)
    counts = _core.count_codes(codes, row_class, col_class)
    classes = row_class[:, None].astype(int) + col_class
    expected = np.zeros((classes.max() + 1, 256), int)
    np.add.at(expected, (classes, codes), 1)
    assert (counts[: len(expected)] == expected).all()
    assert counts.sum() == codes.size
    squares = (np.arange(256, dtype=np.float32) - 7.5) ** 2
    codes[3] = 255
    squares[255] = 0.0
    row_means, col_means = _core.spreads(codes, squares)
    exact = squares.astype(np.float64)[codes]
    # sums of at most 47 numbers in float32, each rounding once
    assert np.allclose(row_means, exact.mean(axis=1), rtol=47 * 2.0**-24, atol=0)
    kept = exact.mean(axis=1) > 0
    by_row = exact[kept] / exact[kept].mean(axis=1, keepdims=True)
    assert np.allclose(col_means, by_row.mean(axis=0), rtol=50 * 2.0**-24, atol=0)
