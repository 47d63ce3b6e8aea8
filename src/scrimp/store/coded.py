"""A tensor under the coder: one array of bytes, ``<tensor>.coded``, in the place of its parts.

A matrix is a section (store/sections.py) for its codes, all planes of them, then for every other part one per byte of
its numbers: the upper bytes of float16 scales repeat, the lower hardly do. A float32 vector is its four bytes so.
What coding does not make smaller lies there as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.formats.contexts import LEVELS, coded_bits, lanes_of, number_bits
from scrimp.formats.memory import weight_array
from scrimp.formats.packing import TILE_ROWS
from scrimp.formats.rounding import to_numbers
from scrimp.store.layout import CODED
from scrimp.store.sections import RAW, Damaged, Reader, decode, raw_section, read_section, section, varint
from scrimp.tensors import DTYPES, PLANE_PARTS, QTensor, Stored, from_parts, part_shapes, part_types, stored_bytes

U8 = NDArray[np.uint8]
#: No tensor is coded into less than this share of its bytes: so no small file can ask for memory without end.
LARGEST_RATIO = 256
#: Kind and sizes of a section, about.
_SECTION_BITS = 8 * 5
#: Parts that a matrix has once, however many rows.
_WHOLE = ("tensor_scale", "codebook")


def encode(tensor: QTensor | NDArray[np.float32], threads: int = 1) -> bytes:
    """A matrix or a float32 vector → its bytes; at most 11 more per section than its parts have."""
    if isinstance(tensor, np.ndarray):
        found = varint(tensor.size) + _bytewise(np.ascontiguousarray(tensor, np.float32))
        return found + bytes(max(0, least_bytes(tensor.nbytes) - len(found)))
    parts = tensor.parts()
    pieces = []
    if _codes_are_bytes(tensor.format):
        planes = [name for name in PLANE_PARTS if name in parts]
        raw = b"".join(parts.pop(name).tobytes() for name in planes)
        codes = np.ascontiguousarray(tensor.codes(), np.uint8)
        pieces.append(section(codes, tensor.format.element.levels, raw, _numbers(tensor), threads))
    pieces += map(_bytewise, parts.values())
    found = b"".join(pieces)
    return found + bytes(max(0, least_bytes(tensor.nbytes) - len(found)))


def predicted_bytes(tensor: QTensor, *, rows: int | None = None) -> float:
    """What :func:`encode` will take, without coding; with ``rows`` the tensor is a sample of a matrix of so many."""
    parts, bits = tensor.parts(), 0.0
    share = 1.0 if rows is None else rows / tensor.shape[0]
    if _codes_are_bytes(tensor.format):
        raw = 8.0 * share * sum(parts.pop(name).nbytes for name in PLANE_PARTS if name in parts)
        codes = np.ascontiguousarray(tensor.codes(), np.uint8)
        bits = min(raw, coded_bits(codes, tensor.format.element.levels, _numbers(tensor), rows=rows)) + _SECTION_BITS
    for name, values in parts.items():
        bits += number_bits(values, share=1.0 if name in _WHOLE else share) + _SECTION_BITS * values.itemsize
    return bits / 8


def decode_matrix(path: Path, name: str, format: Format, shape: tuple[int, int], data: U8, threads: int = 1) -> QTensor:
    """The inverse. Refused when the bytes are not what :func:`encode` writes."""
    if len(data) < least_bytes(stored_bytes(format, shape)):
        raise _refused(path, name, f"has {len(data):,} bytes, too few for {stored_bytes(format, shape):,}")
    reader, parts = Reader(data), dict[str, Stored]()
    shapes, types = part_shapes(format, shape), part_types(format)
    try:
        if _codes_are_bytes(format):
            planes = [part for part in PLANE_PARTS if part in shapes]
            parts |= zip(planes, _codes(reader, format, shape, [shapes[part] for part in planes], threads), strict=True)
        for part, sides in shapes.items():
            if part not in parts:
                kind = np.dtype(np.uint8) if types[part] == "u8" else DTYPES[types[part]]
                parts[part] = _numbers_of(reader, int(np.prod(sides)), kind).reshape(sides)
        _check_end(reader)
    except Damaged as error:
        raise _refused(path, name, str(error)) from None
    return from_parts(name, format, shape, parts)


def vector_size(path: Path, name: str, data: U8) -> int:
    """How many numbers the bytes of a vector say that it has."""
    try:
        size = Reader(data).varint()
    except Damaged as error:
        raise _refused(path, name, str(error)) from None
    if len(data) < least_bytes(4 * size):
        raise _refused(path, name, f"has {len(data):,} bytes, too few for {size:,} numbers")
    return size


def decode_vector(path: Path, name: str, data: U8) -> NDArray[np.float32]:
    """The float32 vector that was encoded."""
    size, reader = vector_size(path, name, data), Reader(data)
    try:
        reader.varint()
        values = _numbers_of(reader, size, np.dtype(np.float32))
        _check_end(reader)
    except Damaged as error:
        raise _refused(path, name, str(error)) from None
    return values.view(np.float32)


def least_bytes(raw_bytes: int) -> int:
    return -(-raw_bytes // LARGEST_RATIO)


def _codes_are_bytes(format: Format) -> bool:
    return format.element.kind != "float" and sum(format.element.planes) <= 8


def _numbers(tensor: QTensor) -> NDArray[np.generic]:
    """What each code means; the rows of a matrix differ in its spread."""
    if "codebook" in tensor.extra:
        return tensor.extra["codebook"].astype(np.float32)
    return to_numbers(tensor.format.element, np.arange(tensor.format.element.levels, dtype=np.uint8))


def _codes(
    reader: Reader, format: Format, shape: tuple[int, int], planes: list[tuple[int, ...]], threads: int
) -> list[U8]:
    kind, payload = read_section(reader)
    if kind != RAW:
        return decode(payload, shape, format.element.levels, format.element.planes, threads)
    sizes = [int(np.prod(plane)) for plane in planes]
    if len(payload) != sum(sizes):
        raise Damaged(f"has codes of {len(payload):,} bytes; {sum(sizes):,} are needed")
    pieces = np.split(payload, np.cumsum(sizes)[:-1])
    return [piece.reshape(plane).copy() for piece, plane in zip(pieces, planes, strict=True)]  # off odd addresses


def _bytewise(values: NDArray[np.generic]) -> bytes:
    """One section per byte of the numbers: the lowest first."""
    by_byte = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    return b"".join(_stream(np.ascontiguousarray(by_byte[:, at])) for at in range(values.itemsize))


def _stream(data: U8) -> bytes:
    """Bytes as sixteen lanes, every sixteenth of them one row."""
    if len(data) < TILE_ROWS:
        return raw_section(data.tobytes())
    return section(lanes_of(data), LEVELS, data.tobytes())


def _numbers_of(reader: Reader, count: int, kind: np.dtype[np.generic]) -> Stored:
    by_byte = weight_array((count, kind.itemsize), np.dtype(np.uint8))
    for at in range(kind.itemsize):
        found, payload = read_section(reader)
        if found == RAW and len(payload) != count:
            raise Damaged(f"has a part of {len(payload):,} bytes; {count:,} are needed")
        shape = (TILE_ROWS, -(-count // TILE_ROWS))
        by_byte[:, at] = payload if found == RAW else decode(payload, shape, LEVELS, ())[0].reshape(-1)[:count]
    return by_byte.reshape(-1).view(kind)


def _check_end(reader: Reader) -> None:
    """Only zeros may follow."""
    if reader.take(reader.rest()).any():
        raise Damaged("goes on after its last part")


def _refused(path: Path, name: str, what: str) -> Refused:
    return Refused(f"{path}: {name[:80]}.{CODED} {what}.",
                   hint="the file is damaged or hostile; compress the model again")  # fmt: skip
