"""The directory a store grows in: a hidden sibling of OUT that survives interruptions and becomes OUT when complete.

``.OUT.partial/`` holds ``model.safetensors``, of a plain store at its full size, and ``journal.jsonl``: first the
fingerprint of the job, then a line for every finished tensor. A line is written only after the bytes it speaks of are
on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import ScrimpError, UsageError
from scrimp.formats import Format
from scrimp.sizes import format_bytes
from scrimp.store.contents import DAMAGED as DAMAGED
from scrimp.store.contents import Finished, contents_of
from scrimp.store.layout import MODEL_FILE, CodedLayout, Layout
from scrimp.tensors import QTensor

JOURNAL = "journal.jsonl"
SCRIMP_JSON = "scrimp.json"
#: All that a store can hold; a directory with anything else is not replaced.
OWN_FILES = frozenset({
    MODEL_FILE, SCRIMP_JSON, f".{SCRIMP_JSON}.new", "config.json", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json", "report.html",
})  # fmt: skip
#: What to do when bytes are not those that were written.
#: Errors that say that nothing can be written at this path.
_NO_PLACE = (
    errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ELOOP,
)  # fmt: skip
#: Finished tensors reach the disk at most this much later.
_DURABLE_EVERY_S = 1.0


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

    def __init__(self, out: Path, layout: Layout | CodedLayout, fingerprint: str, *, fresh: bool = False) -> None:
        check_out(out)
        out = out.parent.resolve() / out.name  # a path through OUT itself leads nowhere while it is replaced
        self.out, self.path, self._contents = out, partial_of(out), contents_of(layout)
        self.finished: dict[str, Finished] = {}
        self._pending: list[str] = []
        self._synced = time.monotonic()
        with _in_words(out, self._contents.file_bytes):
            self.path.mkdir(parents=True, exist_ok=True)
            self._journal = os.open(self.path / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._data = -1
            try:
                lock(self._journal, f"Another scrimp is writing {out}.")
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
        with _in_words(self.out, self._contents.file_bytes):
            checksums, extent = self._contents.write(self._data, name, tensor, self.finished.values())
            self.finished[name] = Finished(name, error, checksums, output_error, notes, extent)
            self._pending.append(json.dumps(asdict(self.finished[name])))
            if time.monotonic() - self._synced >= _DURABLE_EVERY_S:
                self._make_durable()

    def read(self, name: str, format: Format, shape: tuple[int, int]) -> QTensor:
        """A finished matrix again. ScrimpError when the file no longer holds what was written."""
        return self._contents.read(self._data, self.path, self.finished[name], format, shape)

    def read_vector(self, name: str) -> NDArray[np.float32]:
        """A finished vector again; errors as :meth:`read`."""
        return self._contents.read_vector(self._data, self.path, self.finished[name])

    def forget(self, names: Iterable[str]) -> None:
        """Finished tensors that are to be made anew: until they are written again the store does not hold them."""
        unwanted = set(names)
        if unwanted.isdisjoint(self.finished):
            return
        left = [entry for name, entry in self.finished.items() if name not in unwanted]
        kept = {entry.tensor: entry for entry in self._contents.still_there(self._data, left) or ()}
        self._pending.append(json.dumps({"forgotten": [name for name in self.finished if name not in kept]}))
        self.finished = kept
        self._make_durable()

    def add(self, save: Callable[[Path], object]) -> None:
        """Let ``save`` write further files into the directory."""
        with _in_words(self.out, self._contents.file_bytes):
            save(self.path)

    def complete(self, texts: Mapping[str, str], check: Callable[[Path], object] = lambda path: None) -> None:
        """Add the files of ``texts`` (name → content) and put the directory in the place of OUT.

        Before that ``check`` may open it like any store; what it raises leaves OUT as it was.
        """
        assert self.finished.keys() == self._contents.names
        with _in_words(self.out, self._contents.file_bytes):
            self._make_durable()
            self._contents.finish(self._data, self.finished.values())
            for name, text in texts.items():
                write_durably(self.path / name, text)
        check(self.path)
        with _in_words(self.out, self._contents.file_bytes):
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

    def _resume(self, fingerprint: str) -> bool:
        """Read the journal of an earlier attempt at the same job; False when there is none."""
        lines = (self.path / JOURNAL).read_bytes().split(b"\n")
        if lines[0].decode(errors="replace") != fingerprint or not (self.path / MODEL_FILE).is_file():
            return False
        self._data = os.open(self.path / MODEL_FILE, os.O_RDWR)
        told: dict[str, Finished] = {}
        for line in lines[1:]:
            with suppress(ValueError, TypeError):  # the last line may be cut off
                entry = json.loads(line)
                if "forgotten" in entry:
                    for name in entry["forgotten"]:
                        told.pop(name, None)
                elif (finished := Finished(**entry)).tensor in self._contents.names:
                    told[finished.tensor] = finished
        found = self._contents.still_there(self._data, told.values())
        self.finished = {entry.tensor: entry for entry in found or ()}
        return found is not None

    def _begin(self, fingerprint: str) -> None:
        for left in self.path.iterdir():
            if left.name != JOURNAL:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        os.ftruncate(self._journal, 0)
        self._data = os.open(self.path / MODEL_FILE, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._contents.begin(self._data)
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


def lock(descriptor: int, held: str) -> None:
    """Hold an open file as long as it is open; ScrimpError with the sentence ``held`` where another process does."""
    try:
        import fcntl
    except ImportError:  # no such locks outside POSIX
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ScrimpError(held, hint="wait for it, or choose another -o") from None


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
