"""Files in memory without copying them: mapped read-only, and given back page by page once they have been read."""

from __future__ import annotations

import mmap
import stat
from contextlib import suppress
from pathlib import Path

from scrimp.errors import Refused


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes; Refused when it has none, or is no file: a pipe would never answer, a device never end."""
    check_regular(path)
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise Refused(f"{path} is empty.", hint="download it again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def check_regular(path: Path) -> None:
    """Refused for pipes, devices and sockets; opening one can wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise Refused(f"{path} is no regular file.", hint="give the file itself; what comes through a pipe, save first")


def unmap(data: mmap.mmap) -> None:
    """Close a map. Where a view of it is still alive (in a traceback, say) it closes with the last view instead."""
    with suppress(BufferError):
        data.close()


def forget_pages(data: mmap.mmap, offset: int, nbytes: int) -> None:
    """Give the whole pages of a range that was read back to the system, so that a model is not in memory twice."""
    start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (offset + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if length > 0 and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED, start, length)
