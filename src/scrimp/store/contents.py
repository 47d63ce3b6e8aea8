"""What is written into ``model.safetensors`` while a store grows: parts at their places, or coded tensors as they come.

Of a plain store everything is known beforehand but the numbers. Of a packed one the sizes are not: a tensor is appended
behind the ones before it, and the header, for which there is room enough at the front, is written last.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import GoalNotMet
from scrimp.formats import Format
from scrimp.store import coded
from scrimp.store.layout import ALIGNMENT, CodedLayout, Layout, coded_header, coded_part
from scrimp.tensors import DTYPES, QTensor, Stored, from_parts, part_types

DAMAGED = "the disk or the memory damaged it: start over with --fresh"


@dataclass(frozen=True, slots=True)
class Finished:
    """What the journal says of a tensor: its errors against the source and the SHA-256 of each part."""

    tensor: str
    error: float
    checksums: Mapping[str, str]
    output_error: float | None = None
    notes: Sequence[str] = ()
    extent: Sequence[int] | None = None  #: first byte and bytes in the file, where they were not known before


class Contents(Protocol):
    """How tensors go into an open file and come back; ``finished`` are those in it, in the order they came."""

    file_bytes: int  #: of the whole file, at most
    names: frozenset[str]

    def begin(self, file: int) -> None: ...
    def still_there(self, file: int, finished: Iterable[Finished]) -> list[Finished] | None: ...
    def write(
        self, file: int, name: str, tensor: QTensor | NDArray[np.float32], finished: Iterable[Finished]
    ) -> tuple[dict[str, str], tuple[int, int] | None]: ...
    def read(self, file: int, path: Path, done: Finished, format: Format, shape: tuple[int, int]) -> QTensor: ...
    def read_vector(self, file: int, path: Path, done: Finished) -> NDArray[np.float32]: ...
    def finish(self, file: int, finished: Iterable[Finished]) -> None: ...


def contents_of(layout: Layout | CodedLayout) -> Contents:
    return Planes(layout) if isinstance(layout, Layout) else Streams(layout)


class Planes:
    """Every part at the place that its layout gives it."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self.file_bytes, self.names = layout, layout.file_bytes, frozenset(layout.parts)

    def begin(self, file: int) -> None:
        _reserve(file, self.file_bytes)
        _write_all(file, memoryview(self._layout.header), 0)

    def still_there(self, file: int, finished: Iterable[Finished]) -> list[Finished] | None:
        return list(finished) if os.fstat(file).st_size == self.file_bytes else None

    def write(
        self, file: int, name: str, tensor: QTensor | NDArray[np.float32], finished: Iterable[Finished]
    ) -> tuple[dict[str, str], None]:
        stored = (
            {name: tensor}
            if isinstance(tensor, np.ndarray)
            else {f"{name}.{part}": values for part, values in tensor.parts().items()}
        )
        checksums = {}
        for part in self._layout.parts[name]:
            raw = np.ascontiguousarray(stored[part.name]).reshape(-1).view(np.uint8)
            assert raw.nbytes == part.nbytes, part.name
            _write_all(file, raw.data, part.offset)
            checksums[part.name] = hashlib.sha256(raw.data).hexdigest()
        return checksums, None

    def read(self, file: int, path: Path, done: Finished, format: Format, shape: tuple[int, int]) -> QTensor:
        parts: dict[str, Stored] = {}
        for part, (kind, dtype) in zip(self._layout.parts[done.tensor], part_types(format).items(), strict=True):
            raw = _checked(file, path, part.name, part.offset, part.nbytes, done.checksums)
            parts[kind] = raw.view(np.uint8 if dtype == "u8" else DTYPES[dtype]).reshape(part.shape)
        return from_parts(done.tensor, format, shape, parts)

    def read_vector(self, file: int, path: Path, done: Finished) -> NDArray[np.float32]:
        (part,) = self._layout.parts[done.tensor]
        return _checked(file, path, part.name, part.offset, part.nbytes, done.checksums).view(np.float32)

    def finish(self, file: int, finished: Iterable[Finished]) -> None:
        """Nothing is left to do."""


class Streams:
    """Coded tensors one behind the other on 64-byte boundaries."""

    def __init__(self, layout: CodedLayout) -> None:
        self._layout, self.file_bytes, self.names = layout, layout.file_bytes, layout.names

    def begin(self, file: int) -> None:
        _write_all(file, memoryview(bytes(self._layout.header_bytes)), 0)

    def still_there(self, file: int, finished: Iterable[Finished]) -> list[Finished] | None:
        """Those that follow each other without a gap and lie in the file whole."""
        found: list[Finished] = []
        size, at = os.fstat(file).st_size, self._layout.header_bytes
        for entry in finished:
            if entry.extent is None or entry.extent[0] != at or _end(entry) > size:
                break
            found.append(entry)
            at = _end(entry)
        return found if size >= self._layout.header_bytes else None

    def write(
        self, file: int, name: str, tensor: QTensor | NDArray[np.float32], finished: Iterable[Finished]
    ) -> tuple[dict[str, str], tuple[int, int]]:
        at = max((_end(entry) for entry in finished), default=self._layout.header_bytes)
        raw = coded.encode(tensor)
        _write_all(file, memoryview(raw + bytes(-len(raw) % ALIGNMENT)), at)
        return {coded_part(name): hashlib.sha256(raw).hexdigest()}, (at, len(raw))

    def read(self, file: int, path: Path, done: Finished, format: Format, shape: tuple[int, int]) -> QTensor:
        offset, size = extent_of(done)
        raw = _checked(file, path, coded_part(done.tensor), offset, size, done.checksums)
        return coded.decode_matrix(path, done.tensor, format, shape, raw)

    def read_vector(self, file: int, path: Path, done: Finished) -> NDArray[np.float32]:
        offset, size = extent_of(done)
        raw = _checked(file, path, coded_part(done.tensor), offset, size, done.checksums)
        return coded.decode_vector(path, done.tensor, raw)

    def finish(self, file: int, finished: Iterable[Finished]) -> None:
        """Cut off what an interruption left behind the last tensor, and write the header."""
        entries = list(finished)
        os.ftruncate(file, max(map(_end, entries), default=self._layout.header_bytes))
        places = [(coded_part(entry.tensor), *extent_of(entry)) for entry in entries]
        header = coded_header(places, self._layout.header_bytes)
        assert len(header) == self._layout.header_bytes
        _write_all(file, memoryview(header), 0)
        os.fsync(file)


def extent_of(entry: Finished) -> tuple[int, int]:
    """First byte and bytes of a coded tensor."""
    assert entry.extent is not None
    offset, size = entry.extent
    return offset, size


def _end(entry: Finished) -> int:
    """Where the next one begins."""
    offset, size = extent_of(entry)
    return offset + size + -size % ALIGNMENT


def _checked(
    file: int, path: Path, part: str, offset: int, size: int, checksums: Mapping[str, str]
) -> NDArray[np.uint8]:
    raw = np.frombuffer(_read_all(file, size, offset), np.uint8)
    if hashlib.sha256(raw.data).hexdigest() != checksums[part]:
        raise GoalNotMet(f"{path}: {part} is not what was written.", hint=DAMAGED)
    return raw


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Take the room now: a full disk is better known before the work than after it."""
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, size_bytes)  # this file system reserves nothing


def _write_all(descriptor: int, raw: memoryview, offset: int) -> None:
    while raw:
        written = os.pwrite(descriptor, raw, offset)
        raw, offset = raw[written:], offset + written


def _read_all(descriptor: int, count: int, offset: int) -> bytes:
    pieces = []
    while count and (piece := os.pread(descriptor, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(pieces)
