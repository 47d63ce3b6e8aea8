"""Files in memory without copying them: mapped read-only, and given back page by page once they have been read."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path

from scrimp.errors import Refused


def map_file(path: Path) -> mmap.mmap:
    """The file's bytes; Refused when it has none."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise Refused(f"{path} is empty.", hint="download it again")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
