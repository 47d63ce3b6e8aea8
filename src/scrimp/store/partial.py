"""The directory a store grows in: a hidden sibling of OUT that survives interruptions and becomes OUT when complete.

``.OUT.partial/`` holds ``model.safetensors`` at its full size and ``journal.jsonl``: first the fingerprint of the job,
then a line for every finished tensor. A line is written only after the bytes it speaks of are on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import ScrimpError, UsageError
from scrimp.formats import Format
from scrimp.sizes import format_bytes
from scrimp.store.layout import MODEL_FILE, Layout, Part
from scrimp.tensors import DTYPES, QTensor, Stored, from_parts, part_types

JOURNAL = "journal.jsonl"
SCRIMP_JSON = "scrimp.json"
#: All that a store can hold; a directory with anything else is not replaced.
OWN_FILES = frozenset({
    MODEL_FILE, SCRIMP_JSON, f".{SCRIMP_JSON}.new", "config.json", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json",
})  # fmt: skip
#: Errors that say that nothing can be written at this path.
_NO_PLACE = (
    errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP,
)  # fmt: skip
#: Finished tensors reach the disk at most this much later.
_DURABLE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Finished:
    """What the journal says of a tensor: its errors against the source and the SHA-256 of each part."""

    tensor: str
    error: float
    checksums: Mapping[str, str]
    output_error: float | None = None
    notes: Sequence[str] = ()


def partial_of(out: Path) -> Path:
    """``dir/.name.partial``."""
    return out.parent / f".{out.name}.partial"


def check_out(out: Path) -> None:
    """UsageError unless ``out`` is free, an empty directory, or a scrimp directory that may be replaced."""
    if out.name in ("", ".."):
        raise UsageError(f"{out} is no name for a new directory.", hint="name one with -o")
    old = _old_of(out)
    if not out.exists() and old.exists():
        old.rename(out)  # a swap was cut off between its two renames
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{out} is not a directory.", hint="name a new directory with -o")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    strange = held if SCRIMP_JSON not in held else [name for name in held if name not in OWN_FILES]
    if strange:  # replacing the directory would delete them
        raise UsageError(f"{out} holds files that scrimp did not write, such as {strange[0]}.",
                         hint="name a new directory with -o")  # fmt: skip


class Partial:
    """A store being written. Leaving it without :meth:`complete` keeps what is finished for the next attempt."""

    def __init__(self, out: Path, layout: Layout, fingerprint: str, *, fresh: bool = False) -> None:
        self.out, self.path, self.layout = out, partial_of(out), layout
        self.finished: dict[str, Finished] = {}
        self._pending: list[str] = []
        self._synced = time.monotonic()
        check_out(out)
        with _in_words(out, layout.file_bytes):
            self.path.mkdir(parents=True, exist_ok=True)
            self._journal = os.open(self.path / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._data = -1
            try:
                _lock(self._journal, out)
                if fresh or not self._resume(fingerprint):
                    self._begin(fingerprint)
            except BaseException as error:
                self._close()
                if isinstance(error, OSError):
                    shutil.rmtree(self.path, ignore_errors=True)  # nothing was finished: leave nothing behind
                raise

    def write(
        self,
        name: str,
        tensor: QTensor | NDArray[np.float32],
        error: float,
        output_error: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Store one tensor at its place."""
        stored = (
            {name: tensor}
            if isinstance(tensor, np.ndarray)
            else {f"{name}.{part}": values for part, values in tensor.parts().items()}
        )
        checksums = {}
        with _in_words(self.out, self.layout.file_bytes):
            for part in self.layout.parts[name]:
                raw = np.ascontiguousarray(stored[part.name]).reshape(-1).view(np.uint8)
                assert raw.nbytes == part.nbytes, part.name
                _write_all(self._data, raw.data, part.offset)
                checksums[part.name] = hashlib.sha256(raw.data).hexdigest()
            self.finished[name] = Finished(name, error, checksums, output_error, notes)
            self._pending.append(json.dumps(asdict(self.finished[name])))
            if time.monotonic() - self._synced >= _DURABLE_EVERY_S:
                self._make_durable()

    def read(self, name: str, format: Format, shape: tuple[int, int]) -> QTensor:
        """A finished matrix again. ScrimpError when the file no longer holds what was written."""
        parts: dict[str, Stored] = {}
        for part, (kind, dtype) in zip(self.layout.parts[name], part_types(format).items(), strict=True):
            raw = self._read(name, part)
            parts[kind] = raw.view(np.uint8 if dtype == "u8" else DTYPES[dtype]).reshape(part.shape)
        return from_parts(name, format, shape, parts)

    def read_vector(self, name: str) -> NDArray[np.float32]:
        """A finished vector again; errors as :meth:`read`."""
        (part,) = self.layout.parts[name]
        return self._read(name, part).view(np.float32)

    def forget(self, names: Iterable[str]) -> None:
        """Finished tensors that are to be made anew: until they are written again the store does not hold them."""
        if forgotten := [name for name in names if self.finished.pop(name, None)]:
            self._pending.append(json.dumps({"forgotten": forgotten}))
            self._make_durable()

    def add(self, save: Callable[[Path], object]) -> None:
        """Let ``save`` write further files into the directory."""
        with _in_words(self.out, self.layout.file_bytes):
            save(self.path)

    def complete(self, texts: Mapping[str, str]) -> None:
        """Add the files of ``texts`` (name → content) and put the directory in the place of OUT."""
        assert set(self.finished) == set(self.layout.parts)
        with _in_words(self.out, self.layout.file_bytes):
            self._make_durable()
            for name, text in texts.items():
                write_durably(self.path / name, text)
            (self.path / JOURNAL).unlink()
            self._close()
            for file in self.path.iterdir():
                _sync(file)
            _sync(self.path)
            _swap(self.path, self.out)
            _sync(self.out.parent)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk has been told of; what is durable stays so
            self._make_durable()
        self._close()

    def _read(self, name: str, part: Part) -> NDArray[np.uint8]:
        raw = np.frombuffer(_read_all(self._data, part.nbytes, part.offset), np.uint8)
        if hashlib.sha256(raw.data).hexdigest() != self.finished[name].checksums[part.name]:
            raise ScrimpError(f"{self.path}: {part.name} is not what was written.", hint="start over with --fresh")
        return raw

    def _resume(self, fingerprint: str) -> bool:
        """Read the journal of an earlier attempt at the same job; False when there is none."""
        lines = (self.path / JOURNAL).read_bytes().split(b"\n")
        if lines[0].decode(errors="replace") != fingerprint or not (self.path / MODEL_FILE).is_file():
            return False
        self._data = os.open(self.path / MODEL_FILE, os.O_RDWR)
        if os.fstat(self._data).st_size != self.layout.file_bytes:
            return False
        for line in lines[1:]:
            with suppress(ValueError, TypeError):  # the last line may be cut off
                told = json.loads(line)
                if "forgotten" in told:
                    for name in told["forgotten"]:
                        self.finished.pop(name, None)
                elif (entry := Finished(**told)).tensor in self.layout.parts:
                    self.finished[entry.tensor] = entry
        return True

    def _begin(self, fingerprint: str) -> None:
        for left in self.path.iterdir():
            if left.name != JOURNAL:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        os.ftruncate(self._journal, 0)
        self._data = os.open(self.path / MODEL_FILE, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        _reserve(self._data, self.layout.file_bytes)
        _write_all(self._data, memoryview(self.layout.header), 0)
        os.fsync(self._data)
        _append(self._journal, f"{fingerprint}\n")

    def _make_durable(self) -> None:
        if self._pending and self._data >= 0:
            os.fsync(self._data)
            # A cut-off line of an earlier attempt must not swallow the first of these.
            _append(self._journal, "".join(f"\n{line}" for line in self._pending) + "\n")
            self._pending.clear()
        self._synced = time.monotonic()

    def _close(self) -> None:
        for descriptor in (self._journal, self._data):
            if descriptor >= 0:
                os.close(descriptor)
        self._journal = self._data = -1


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, whatever happens."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _swap(partial: Path, out: Path) -> None:
    old = _old_of(out)
    if out.exists():
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        partial.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old_of(out: Path) -> Path:
    return out.parent / f".{out.name}.old"


def _lock(descriptor: int, out: Path) -> None:
    try:
        import fcntl
    except ImportError:  # no such locks outside POSIX
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ScrimpError(f"Another scrimp is writing {out}.", hint="wait for it, or choose another -o") from None


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


def _append(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode())
    os.fsync(descriptor)


def _sync(path: Path) -> None:
    with suppress(OSError):  # not every system opens directories
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _in_words(out: Path, need_bytes: int) -> Iterator[None]:
    """A full disk as one sentence; other errors of the system are told by the command line."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            if error.errno not in _NO_PLACE:
                raise
            raise ScrimpError(
                f"{out} cannot be written: {error.strerror}.", hint="name another place with -o"
            ) from error
        parent = next(path for path in (out.parent, *out.parent.parents) if path.exists())
        free = format_bytes(shutil.disk_usage(parent).free)
        raise ScrimpError(
            f"{out} needs {format_bytes(need_bytes)}; its disk has {free} left ({error.strerror}).",
            hint="make room and run the same command again: what was finished is kept",
        ) from error
