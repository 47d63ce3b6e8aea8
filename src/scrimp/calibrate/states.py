"""Hidden states of all windows between two blocks: in memory, or in a nameless file where they are many."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from scrimp.errors import ScrimpError
from scrimp.sizes import format_bytes
from scrimp.tensors import F32

#: More than this goes to a file, whose pages the system can put out of memory.
MEMORY_BYTES = 256 * 2**20


def hold(
    shape: tuple[int, int, int],
    directory: Path | None,
    limit_bytes: int | None = None,
    *,
    what: str | None = None,
    hint: str = "make room, or take fewer: --calibrate-windows",
) -> F32:
    """Room for ``(windows, T, width)`` float32; beyond the limit a file in ``directory`` that goes when the array does.

    The room on the disk is taken at once: a disk that filled up later would end the process with a bus error.
    """
    size_bytes = 4 * int(np.prod(shape, dtype=np.int64))
    if size_bytes <= (MEMORY_BYTES if limit_bytes is None else limit_bytes):
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        except OSError as error:
            raise ScrimpError(
                f"{what or f'The hidden states of {shape[0]} windows'} need {format_bytes(size_bytes)} on the disk of "
                f"{directory or tempfile.gettempdir()} ({error.strerror}).",
                hint=hint,
            ) from error
        return np.memmap(file, np.float32, mode="r+", shape=shape)
