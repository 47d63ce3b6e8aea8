"""Byte arrays under the coder, as they lie in a file; a stream is a stranger's until every step of it was checked.

::

    section   kind (1 byte), varint bytes, payload            never more than 11 bytes longer than the raw bytes
    0 raw     the bytes
    1 coded   varint side bytes, side, varint bytes of each segment, segments
    side      flags, classes - 1, tables - 1, levels - 1 (a byte each); deflated: table of each class,
              class of each row (flag 1), class of each column (flag 2), tables as differences from the one before

Varints: seven bits a byte, the lowest first, the top bit where more follow.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.formats import frequencies
from scrimp.formats.contexts import Contexts, choose, segment_rows

U8 = NDArray[np.uint8]
RAW, CODED = 0, 1
_BY_ROW, _BY_COL = 1, 2
_VARINT_BYTES = 9


class Damaged(ValueError):
    """What a section says cannot be; the caller knows of which tensor."""


class Reader:
    """A cursor over bytes that may end anywhere."""

    def __init__(self, data: U8) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> U8:
        if count > len(self._data) - self._at:
            raise Damaged(f"ends after {len(self._data):,} bytes; {count - (len(self._data) - self._at):,} are missing")
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self) -> int:
        value = 0
        for at in range(_VARINT_BYTES):
            byte = int(self.take(1)[0])
            value |= (byte & 127) << (7 * at)
            if byte < 128:
                return value
        raise Damaged("holds a number that does not end")

    def rest(self) -> int:
        return len(self._data) - self._at


def varint(value: int) -> bytes:
    """
    >>> varint(300)
    b'\\xac\\x02'
    """
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def section(codes: U8, levels: int, raw: bytes, numbers: NDArray[np.generic] | None = None, threads: int = 1) -> bytes:
    """Codes ``(N, K)`` of ``levels`` levels coded, or ``raw`` where that is no longer."""
    payload = _coded(codes, choose(codes, levels, numbers), threads)
    kind, body = (CODED, payload) if len(payload) < len(raw) else (RAW, raw)
    return bytes([kind]) + varint(len(body)) + body


def raw_section(raw: bytes) -> bytes:
    return bytes([RAW]) + varint(len(raw)) + raw


def read_section(reader: Reader) -> tuple[int, U8]:
    """Kind and payload."""
    kind = int(reader.take(1)[0])
    if kind not in (RAW, CODED):
        raise Damaged(f"holds a section of the unknown kind {kind}")
    return kind, reader.take(reader.varint())


def decode(payload: U8, shape: tuple[int, int], levels: int, widths: Sequence[int], threads: int = 1) -> list[U8]:
    """The payload of a coded section → planes ``(tiles, vectors, 64)``, or without widths bytes ``(tiles, K, 16)``."""
    reader = Reader(payload)
    side = Reader(reader.take(reader.varint()))
    row_class, col_class, tables, stored = _read_side(side, shape, levels)
    per_segment = segment_rows(*shape)
    sizes = [reader.varint() for _ in range(-(-shape[0] // per_segment))]
    if sum(sizes) != reader.rest():
        raise Damaged(f"has segments of {sum(sizes):,} bytes in {reader.rest():,}")
    stream, ends = reader.take(reader.rest()), list(accumulate(sizes))
    try:
        return _core.rans_decode(stream, ends, shape, row_class, col_class, tables,
                                 frequencies.frequencies(stored), per_segment, widths, threads)  # fmt: skip
    except ValueError as error:
        raise Damaged(f"does not decode: {error}") from None


def _coded(codes: U8, found: Contexts, threads: int) -> bytes:
    stream, ends = _core.rans_encode(codes, found.row_class, found.col_class, found.tables, found.frequencies,
                                     segment_rows(*codes.shape), threads)  # fmt: skip
    side = found.side()
    sizes = np.diff(ends, prepend=0).tolist()
    return varint(len(side)) + side + b"".join(map(varint, sizes)) + stream.tobytes()


def _read_side(reader: Reader, shape: tuple[int, int], levels: int) -> tuple[U8, U8, U8, U8]:
    flags, classes, count, stored_levels = (int(byte) for byte in reader.take(4))
    classes, count, stored_levels = classes + 1, count + 1, stored_levels + 1
    if flags > (_BY_ROW | _BY_COL) or stored_levels > levels:
        raise Damaged(f"is coded with flags {flags} for {stored_levels} levels; there are {levels}")
    rows, cols = (side if flags & flag else 0 for side, flag in zip(shape, (_BY_ROW, _BY_COL), strict=True))
    sizes = [classes, rows, cols, count * stored_levels]
    inflate = zlib.decompressobj(-15)
    try:
        body = inflate.decompress(reader.take(reader.rest()).tobytes(), sum(sizes) + 1)
    except zlib.error:
        raise Damaged("has tables that do not inflate") from None
    if len(body) != sum(sizes) or not inflate.eof or inflate.unused_data:
        raise Damaged(f"has tables of another size than {sum(sizes):,} bytes")
    found, ends = np.frombuffer(body, np.uint8), list(accumulate(sizes))
    tables, row_class, col_class, steps = (found[end - size : end] for size, end in zip(sizes, ends, strict=True))
    stored = np.add.accumulate(steps.reshape(count, stored_levels), axis=0, dtype=np.uint8)
    return (
        row_class if rows else np.zeros(shape[0], np.uint8),
        col_class if cols else np.zeros(shape[1], np.uint8),
        tables,
        stored,
    )
