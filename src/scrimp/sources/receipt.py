"""What was downloaded and verified into a directory, so that 98 MB are not hashed again at every start.

``.scrimp.json`` beside the files: ``{"files": {name: {"bytes", "mtime_ns", "sha256"}}}``. A file whose size and time of
change are still those of the receipt is the one that was verified.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAME = ".scrimp.json"
_LOCK = ".scrimp.lock"
#: Prefix of the temporary directories of a download; whatever an interrupted one left is removed by the next.
SCRATCH = ".pull-"


def verified(directory: Path) -> dict[str, str]:
    """name → SHA-256 of the files that have not changed since they were verified; empty where anything is odd."""
    try:
        files = json.loads((directory / NAME).read_text())["files"]
        return {name: _unchanged(directory / name, entry) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def write(directory: Path, digests: Mapping[str, str]) -> None:
    """Say that these files of ``directory`` were just verified."""
    files: dict[str, Any] = {}
    for name, digest in digests.items():
        stat = (directory / name).stat()
        files[name] = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": digest}
    temporary = directory / f"{NAME}.{os.getpid()}"
    temporary.write_text(json.dumps({"files": files}, indent=1))
    temporary.replace(directory / NAME)


def sha256_of(path: Path, advance: Callable[[int], None] | None = None) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if advance is not None:
                advance(len(block))
    return digest.hexdigest()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One download at a time into ``directory``: a second process waits, and then finds the files."""
    try:
        import fcntl
    except ImportError:  # no such locks outside POSIX: two processes may then download the same twice
        yield
        return
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def leave_no_empty(directory: Path) -> None:
    """Remove a directory that a failed download would leave with nothing but its lock."""
    with suppress(OSError):
        if {path.name for path in directory.iterdir()} <= {_LOCK}:
            (directory / _LOCK).unlink(missing_ok=True)
            directory.rmdir()


def _unchanged(path: Path, entry: Mapping[str, Any]) -> str:
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) != (entry["bytes"], entry["mtime_ns"]):
        raise ValueError(f"{path} changed")
    return str(entry["sha256"])
