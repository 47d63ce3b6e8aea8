"""One safetensors file: its header checked before anything is believed, its bytes mapped.

::

    u64 N (little-endian)   N bytes of JSON   payload
    { "name": {"dtype": "F16", "shape": [2, 3], "data_offsets": [begin, end]}, …, "__metadata__": {…} }

Offsets count from the payload's start. Tensors tile the payload exactly: no hole, no overlap, nothing behind them.
Source: the format's specification (README of the safetensors project).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.sources.json_object import parse_json_object
from scrimp.sources.mapped import forget_pages, map_file, unmap

HEADER_BYTES = 100_000_000
TENSORS = 250_000
VALUES = 12 * TENSORS
NAME_CHARS = 512
RANK = 8
FILE_BYTES = 2**62

#: dtype → bits per value
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
_HINT = "the file is damaged, incomplete or hostile; download it again"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies; ``offset`` counts from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """A mapped file with a checked header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data = map_file(path)
        try:
            self.tensors = parse_header(self._data, str(path))
        except BaseException:
            unmap(self._data)
            raise

    @property
    def nbytes(self) -> int:
        return len(self._data)

    def bytes_of(self, name: str) -> NDArray[np.uint8]:
        """The raw bytes, still in the map: copy what outlives the file."""
        tensor = self.tensors[name]
        return np.frombuffer(self._data, np.uint8, tensor.nbytes, tensor.offset)

    def forget(self, name: str) -> None:
        """The tensor has been read: its pages may go."""
        forget_pages(self._data, self.tensors[name].offset, self.tensors[name].nbytes)

    def close(self) -> None:
        unmap(self._data)


def parse_header(data: Any, what: str) -> dict[str, StoredTensor]:
    """Check the header of the file whose bytes are ``data``; errors begin with ``what``."""
    size = len(data)
    if size < 10:
        raise Refused(f"{what}: the file has {size} bytes; a header needs at least 10.", hint=_HINT)
    length = int.from_bytes(data[:8], "little")
    if length > HEADER_BYTES:
        raise Refused(f"{what}: the header claims {length:,} bytes; the limit is {HEADER_BYTES:,}.", hint=_HINT)
    if length > size - 8:
        raise Refused(f"{what}: the header claims {length:,} bytes; the file has {size - 8:,} left.", hint=_HINT)
    raw = data[8 : 8 + length]
    if not raw.startswith(b"{"):
        raise Refused(f"{what}: the header does not begin with '{{'.", hint=_HINT)
    values = sum(map(raw.count, (b"{", b"[", b",")))  # about; each becomes an object of Python's, far larger than it
    if values > VALUES:
        raise Refused(f"{what}: the header holds {values:,} values; the limit is {VALUES:,}.", hint=_HINT)
    header = parse_json_object(raw, f"{what}: the header")
    header.pop("__metadata__", None)
    if len(header) > TENSORS:
        raise Refused(f"{what}: the header names {len(header):,} tensors; the limit is {TENSORS:,}.", hint=_HINT)
    tensors = [_tensor(name, entry, 8 + length, what) for name, entry in header.items()]
    _check_tiling(tensors, 8 + length, size, what)
    return {tensor.name: tensor for tensor in tensors}


def _tensor(name: str, entry: object, start: int, what: str) -> StoredTensor:
    if len(name) > NAME_CHARS:
        raise Refused(f"{what}: a tensor's name has {len(name):,} characters; the limit is {NAME_CHARS}.", hint=_HINT)
    if not name or not name.isprintable():
        raise Refused(f"{what}: a tensor's name is {name!r}, which is no printable text.", hint=_HINT)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"{what}: {name} must have exactly dtype, shape and data_offsets.", hint=_HINT)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise Refused(f"{what}: {name} has the unknown dtype {str(dtype)[:40]!r}.", hint=_HINT)
    if not _naturals(shape) or len(shape) > RANK:
        raise Refused(f"{what}: the shape of {name} is no list of up to {RANK} natural numbers.", hint=_HINT)
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise Refused(f"{what}: the data_offsets of {name} are no [begin, end].", hint=_HINT)
    count = 1
    for side in shape:
        count *= side
        if count > FILE_BYTES:
            raise Refused(f"{what}: {name} has the impossible shape {' × '.join(map(str, shape))}.", hint=_HINT)
    bits, spans = count * DTYPE_BITS[dtype], offsets[1] - offsets[0]
    if bits != 8 * spans:
        raise Refused(f"{what}: {name} spans {spans:,} bytes; {dtype} of its shape takes {bits / 8:,.0f}.", hint=_HINT)
    return StoredTensor(name, dtype, tuple(shape), start + offsets[0], offsets[1] - offsets[0])


def _check_tiling(tensors: list[StoredTensor], start: int, size: int, what: str) -> None:
    expected, before = start, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != expected:
            how = "overlaps" if tensor.offset < expected else "leaves a hole after"
            at = min(expected, tensor.offset) - start
            raise Refused(f"{what}: {tensor.name} {how} {before} at byte {at:,}.", hint=_HINT)
        expected, before = tensor.offset + tensor.nbytes, tensor.name
    if expected < size:
        raise Refused(f"{what}: {size - expected:,} bytes follow the last tensor.", hint=_HINT)
    if expected > size:
        raise Refused(f"{what}: {expected - size:,} bytes are missing at the end.", hint=_HINT)


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= FILE_BYTES for item in value)
