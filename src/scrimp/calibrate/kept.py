"""Statistics of an original network on the disk, while several compressions of it want the same ones.

One file per block: ``SHA-256 of the rest (32 bytes) · key (64) · of every buffer that is measured, in order:
count int64, rows of the sample int64, moments (K, K) float64, mean, magnitude, peak (K,) float32, sample float32``.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.accumulate import SAMPLE_ROWS
from scrimp.calibrate.split import Block
from scrimp.calibrate.statistics import Statistics

#: More is not kept, whatever room there is.
MOST_BYTES = 16 * 10**9
#: Of the room that is left on the disk, one part of so many may be taken.
SHARE = 4
_HEADER = struct.Struct("<qq")
_DIGEST_BYTES = hashlib.sha256().digest_size

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Kept:
    """A directory for the Statistics of one ``key``: a hash (64 hex digits) of all that they depend on.

    What is no file of ours, of another key, cut off or changed is as if it were not there, and what cannot be written
    is not kept.
    """

    directory: Path
    key: str

    def get(self, at: int, block: Block) -> dict[str, Statistics] | None:
        """Of the matrices of block ``at``, one object for all that read the same buffer; None where none are kept."""
        try:
            with self._path(at).open("rb") as file:
                measured = self._read(file, block)
        except (OSError, ValueError):
            return None
        return {name: measured[buffer] for name, buffer in block.reads.items()}

    def put(self, at: int, block: Block, statistics: dict[str, Statistics]) -> None:
        """Keep what :meth:`get` returns from now on; other processes see all of the file or none."""
        temporary = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.directory)
            with os.fdopen(handle, "wb") as file:
                digest = hashlib.sha256(self.key.encode())
                file.write(bytes(_DIGEST_BYTES) + self.key.encode())
                for part in self._parts(block, statistics):
                    digest.update(part)
                    file.write(part)
                file.seek(0)
                file.write(digest.digest())
            os.replace(temporary, self._path(at))
        except OSError:  # a full disk: the next one measures again
            if temporary is not None:
                with suppress(OSError):
                    os.unlink(temporary)

    def _path(self, at: int) -> Path:
        return self.directory / f"{at:05}.statistics"

    def _parts(self, block: Block, statistics: dict[str, Statistics]) -> Iterator[memoryview]:
        for buffer in _buffers(block):
            of = statistics[next(name for name, read in block.reads.items() if read == buffer)]
            assert of.sample is not None
            yield memoryview(_HEADER.pack(of.count, len(of.sample)))
            for values in (of.moments, of.mean, of.magnitude, of.peak, of.sample):
                yield np.ascontiguousarray(values).data.cast("B")

    def _read(self, file: BinaryIO, block: Block) -> dict[int, Statistics]:
        """ValueError unless the file is one that :meth:`put` wrote, to the last byte."""
        expected, key = file.read(_DIGEST_BYTES), file.read(len(self.key))
        if key != self.key.encode():
            raise ValueError(key)
        digest = hashlib.sha256(key)
        found = {}
        for buffer in _buffers(block):
            width, header = block.program.widths[buffer], file.read(_HEADER.size)
            if len(header) < _HEADER.size or not 0 < (rows := _HEADER.unpack(header)[1]) < 2 * SAMPLE_ROWS:
                raise ValueError(header)
            digest.update(header)
            moments = _array(file, digest, np.dtype("<f8"), (width, width))
            mean, magnitude, peak = (_array(file, digest, np.dtype("<f4"), (width,)) for _ in range(3))
            sample = _array(file, digest, np.dtype("<f4"), (rows, width))
            count = int(_HEADER.unpack(header)[0])
            found[buffer] = Statistics(count, moments, mean, magnitude, peak, sample, logits=block.is_last)
        if file.read(1) or digest.digest() != expected:
            raise ValueError(expected)
        return found


def kept_at(directory: Path | None, key: str, blocks: Sequence[Block]) -> Kept | None:
    """Room for the Statistics of these blocks: about 8 bytes for each K² of their inputs (SmolLM2-135M: 1.0 GB).

    None without a directory, or where they would take more than ``MOST_BYTES`` or a ``SHARE``-th of its disk's room.
    """
    if directory is None:
        return None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = sum(file.stat().st_size for file in (directory / key).glob("*"))
        room = min(MOST_BYTES, held + shutil.disk_usage(directory).free // SHARE)
    except OSError:
        return None
    return Kept(directory / key, key) if sum(map(file_bytes, blocks)) <= room else None


def file_bytes(block: Block) -> int:
    """Of a block's Statistics, at the most."""
    widths = (block.program.widths[buffer] for buffer in _buffers(block))
    return 256 + sum(_HEADER.size + 8 * width**2 + 4 * width * (3 + 2 * SAMPLE_ROWS) for width in widths)


def _buffers(block: Block) -> list[int]:
    return sorted(set(block.reads.values()))


def _array(file: BinaryIO, digest: hashlib._Hash, kind: np.dtype[T], shape: tuple[int, ...]) -> NDArray[T]:
    held = bytearray(kind.itemsize * math.prod(shape))
    if file.readinto(held) != len(held):  # type: ignore[attr-defined]
        raise ValueError("cut off")
    digest.update(held)
    return np.frombuffer(held, kind).reshape(shape)
