"""IDX, the file format of MNIST: two zeros, the type, the number of sides, the sides in big-endian, the bytes.

Source: the description on the page of the MNIST database (LeCun, Cortes, Burges).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.sources.mapped import check_regular

_UNSIGNED_BYTE = 8
#: Most bytes a set may have when it is unpacked.
LIMIT = 1 << 30
_AT_ONCE = 1 << 20


def read_idx(path: Path, sides: int) -> NDArray[np.uint8]:
    """An array of bytes with ``sides`` sides, packed by gzip or not. Refused where it is anything else."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _read(file, path, sides)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Refused(f"{path} can't be unpacked: {error}.", hint="the file is damaged or incomplete") from None


def _read(file: IO[bytes] | gzip.GzipFile, path: Path, sides: int) -> NDArray[np.uint8]:
    header = file.read(4 + 4 * sides)
    if len(header) != 4 + 4 * sides or header[:4] != bytes((0, 0, _UNSIGNED_BYTE, sides)):
        raise Refused(f"{path} is no IDX file of bytes with {sides} sides.", hint="it may be another file")
    shape = struct.unpack(f">{sides}I", header[4:])
    size = 1
    for side in shape:  # integers of Python don't overflow
        size *= side
    if not 0 < size <= LIMIT:
        raise Refused(f"{path} is an array of {' × '.join(f'{side:,}' for side in shape)} bytes.",
                      hint=f"1 … {LIMIT:,} are possible")  # fmt: skip
    found = bytearray()
    while len(found) <= size and (part := file.read(min(_AT_ONCE, size + 1 - len(found)))):
        found += part
    if len(found) != size:
        more = "more" if len(found) > size else f"{len(found):,}"
        raise Refused(f"{path} should hold {size:,} bytes after its header and holds {more}.",
                      hint="the file is damaged or incomplete")  # fmt: skip
    return np.frombuffer(found, np.uint8).reshape(shape)
