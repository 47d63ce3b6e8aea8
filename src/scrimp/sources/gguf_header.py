"""The header of a GGUF file: metadata and where every tensor lies. A stranger's file until every number is checked.

::

    "GGUF"  u32 version  u64 tensors  u64 keys          all little-endian
    keys    × { string key, u32 type, value }           string = u64 length + UTF-8; array = u32 type, u64 count, values
    tensors × { string name, u32 rank, u64 side × rank (fastest first), u32 type, u64 offset }
    padding to general.alignment, then the data: offsets count from here

Numbers from the file are Python integers, which do not overflow, and are compared with what is left of the file before
anything is allocated. Source: the GGUF specification (ggml, docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from scrimp.errors import Refused
from scrimp.sources.gguf_blocks import TYPES, BlockType

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

HEADER_BYTES = 128_000_000
KEYS = 65_536
TENSORS = 1_000_000
NAME_BYTES = 256
STRING_BYTES = 4_000_000
ARRAY_ITEMS = 2**22
RANK = 4
ALIGNMENT = 2**16
FILE_BYTES = 2**62

_U32, _U64 = 4, 10
_BOOL, _STRING, _ARRAY = 7, 8, 9
#: value type → its NumPy type; 7 (bool), 8 (string) and 9 (array) are read by hand.
_SCALARS: dict[int, str] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
_WORD = struct.Struct("<I").unpack_from
_LONG = struct.Struct("<Q").unpack_from


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies: ``shape`` with the slowest side first, as in NumPy; ``offset`` from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    metadata: dict[str, Value]
    tensors: dict[str, GgufTensor]


def parse_header(data: bytes | mmap.mmap, what: str) -> GgufHeader:
    """Read and check the header of the GGUF file whose bytes are ``data``; errors begin with ``what``."""
    cursor = _Cursor(data, what)
    if cursor.take(4, "the magic") != b"GGUF":
        cursor.fail("this is no GGUF file")
    version = cursor.u32("the version")
    if version & 0xFFFF == 0:
        cursor.fail("the file is big-endian; only little-endian files are read")
    if version not in (2, 3):
        cursor.fail(f"GGUF version {version} is not supported; versions 2 and 3 are")
    tensors = cursor.bounded(TENSORS, "tensors")
    keys = cursor.bounded(KEYS, "metadata keys")
    metadata: dict[str, Value] = {}
    for _ in range(keys):
        key = cursor.name("a metadata key")
        if key in metadata:
            cursor.fail(f"the metadata key '{key}' appears twice")
        metadata[key] = _value(cursor, key)
    alignment = metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)  # _value let nothing else pass
    if not 1 <= alignment <= ALIGNMENT or alignment & (alignment - 1):
        cursor.fail(f"general.alignment is {alignment:,}; it must be a power of two up to {ALIGNMENT:,}")
    infos = [_tensor(cursor) for _ in range(tensors)]
    start = _align(cursor.at, alignment)
    return GgufHeader(metadata, _place(cursor, infos, start, alignment))


class _Cursor:
    """A position in the file that only moves over bytes that exist."""

    def __init__(self, data: bytes | mmap.mmap, what: str) -> None:
        self.data = data
        self.size = len(data)
        self.what = what
        self.at = 0

    def fail(self, message: str) -> NoReturn:
        raise Refused(f"{self.what}: {message}.", hint="the file is damaged, incomplete or hostile; download it again")

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            self.fail(f"{what} needs {count:,} bytes at byte {self.at:,}, but the file ends at byte {self.size:,}")
        if self.at + count > HEADER_BYTES:
            self.fail(f"the header goes beyond {HEADER_BYTES:,} bytes at {what}")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        self.at += count
        return self.data[self.at - count : self.at]

    def u32(self, what: str) -> int:
        self.need(4, what)
        self.at += 4
        return int(_WORD(self.data, self.at - 4)[0])

    def u64(self, what: str) -> int:
        self.need(8, what)
        self.at += 8
        return int(_LONG(self.data, self.at - 8)[0])

    def bounded(self, limit: int, what: str) -> int:
        count = self.u64(f"the number of {what}")
        if count > limit:
            self.fail(f"the header claims {count:,} {what}; the limit is {limit:,}")
        return count

    def string(self, limit: int, what: str) -> str:
        length = self.u64(what)
        if length > limit:
            self.fail(f"{what} claims {length:,} bytes; the limit is {limit:,}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")

    def name(self, what: str) -> str:
        """A string that error messages may show: short, not empty, nothing that steers a terminal."""
        name = self.string(NAME_BYTES, what)
        if not name or not name.isprintable():
            self.fail(f"{what} is {name!r}, which is no printable text")
        return name

    def strings(self, count: int, what: str) -> list[str]:
        """``count`` strings. A vocabulary has 100,000 of them, so this loop is the time that opening a file takes."""
        data, at, end = self.data, self.at, min(self.size, HEADER_BYTES)
        out: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + _LONG(data, at)[0]
                if at > end:
                    break
                out.append(data[start:at].decode())
        except struct.error:
            at = end + 1
        except UnicodeDecodeError:
            self.fail(f"string {len(out):,} of '{what}' is not UTF-8")
        if at > end:
            whole = "file" if end == self.size else "header"
            self.fail(f"string {len(out):,} of '{what}' goes beyond the end of the {whole}")
        self.at = at
        return out


def _value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32(f"the type of '{key}'")
    if key == "general.alignment" and kind != _U32:
        cursor.fail(f"general.alignment has value type {kind}; it must be uint32 ({_U32})")
    if kind == _STRING:
        return cursor.string(STRING_BYTES, f"'{key}'")
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _SCALARS:
        cursor.fail(f"'{key}' has the unknown value type {kind}")
    return _numbers(cursor, kind, 1, key)[0]


def _array(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32(f"the item type of '{key}'")
    if kind == _ARRAY:
        cursor.fail(f"'{key}' is an array of arrays, which is not supported")
    if kind != _STRING and kind not in _SCALARS:
        cursor.fail(f"'{key}' has items of the unknown value type {kind}")
    count = cursor.u64(f"the length of '{key}'")
    if count > ARRAY_ITEMS:
        cursor.fail(f"'{key}' claims {count:,} items; the limit is {ARRAY_ITEMS:,}")
    if kind == _STRING:
        cursor.need(8 * count, f"'{key}'")
        return cursor.strings(count, key)
    return _numbers(cursor, kind, count, key)


def _numbers(cursor: _Cursor, kind: int, count: int, key: str) -> list[int] | list[float] | list[bool]:
    dtype = np.dtype(_SCALARS[kind])
    values = np.frombuffer(cursor.take(count * dtype.itemsize, f"'{key}'"), dtype)
    if kind == _BOOL:
        if values.size and values.max() > 1:
            cursor.fail(f"'{key}' is a boolean with the value {values.max()}")
        return [bool(value) for value in values]
    return values.tolist()  # type: ignore[no-any-return]


def _tensor(cursor: _Cursor) -> GgufTensor:
    """One entry of the tensor table; its offset still counts from the start of the data."""
    name = cursor.name("a tensor's name")
    rank = cursor.u32(f"the rank of {name}")
    if not 1 <= rank <= RANK:
        cursor.fail(f"{name} has {rank:,} dimensions; 1 to {RANK} are possible")
    sides = [cursor.u64(f"the shape of {name}") for _ in range(rank)]
    number = cursor.u32(f"the type of {name}")
    offset = cursor.u64(f"the offset of {name}")
    kind = TYPES.get(number)
    if kind is None:
        raise Refused(f"{cursor.what}: {name} has the unknown tensor type {number}.",
                      hint=f"known: {', '.join(t.name for t in TYPES.values())}")  # fmt: skip
    count = 1
    for side in sides:
        count *= side
        if not 1 <= count <= FILE_BYTES:
            cursor.fail(f"{name} has the impossible shape {' × '.join(f'{s:,}' for s in reversed(sides))}")
    if sides[0] % kind.block:
        cursor.fail(f"{name} has rows of {sides[0]:,}, which blocks of {kind.block} ({kind.name}) do not divide")
    return GgufTensor(name, tuple(reversed(sides)), kind, offset, count // kind.block * kind.nbytes + kind.tail)


def _place(cursor: _Cursor, infos: list[GgufTensor], start: int, alignment: int) -> dict[str, GgufTensor]:
    """Check that the tensors tile the data without overlap or hole and end with the file; make offsets absolute."""
    placed: dict[str, GgufTensor] = {}
    expected, before = 0, "the header"
    for info in sorted(infos, key=lambda info: info.offset):
        if info.offset != expected:
            how = "overlaps" if info.offset < expected else "leaves a hole after"
            cursor.fail(f"{info.name} {how} {before}: it lies at byte {info.offset:,} of the data, not {expected:,}")
        end = start + info.offset + info.nbytes
        if end > cursor.size:
            cursor.fail(f"{info.name} ends at byte {end:,}, but the file at byte {cursor.size:,}")
        if info.name in placed:
            cursor.fail(f"the tensor name '{info.name}' appears twice")
        placed[info.name] = GgufTensor(info.name, info.shape, info.type, start + info.offset, info.nbytes)
        expected, before = _align(info.offset + info.nbytes, alignment), info.name
    if cursor.size > start + expected:
        cursor.fail(f"{cursor.size - start - expected:,} bytes follow the last tensor")
    return {info.name: placed[info.name] for info in infos}


def _align(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
