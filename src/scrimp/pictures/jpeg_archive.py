"""A .tar.gz of JPEG files ``train|test/CLASS/NUMBER.jpg``: decoded once, and kept in scrimp's cache."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, ScrimpError
from scrimp.sources.catalogue import cache_directory
from scrimp.sources.mapped import check_regular

_MEMBER = re.compile(r"(?:\./)?(train|test)/([a-z]{1,20})/(\d{1,8})\.jpg")
#: Bytes that a picture may have, and that the archive may unpack to.
_LARGEST, _UNPACKED = 1 << 16, 1 << 28
#: Pictures of all splits together.
_MOST = 1 << 17
Arrays = dict[str, NDArray[np.uint8]]


def read_archive(path: Path, split: str, names: tuple[str, ...], side: int) -> Arrays:
    """``images (n, side, side, 3)`` and ``labels (n,)`` of a split, the first picture of every class first, then the
    second of every class, …: the first n are a fair sample.

    The bytes are those of the JPEG decoder that is installed; another may round them differently.
    """
    check_regular(path)
    if path.stat().st_size > _UNPACKED:
        raise Refused(f"{path} has more than {_UNPACKED:,} bytes.", hint="it may be another archive")
    key = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    kept = cache_directory() / "pictures" / f"{key}-{split}.npz"
    if (found := _reopen(kept, names, side)) is not None:
        return found
    decoded = _decode(path, names, side)
    for part, arrays in decoded.items():
        with suppress(OSError):  # no room, or no right to write: it is decoded again the next time
            _keep(kept.with_name(f"{key}-{part}.npz"), arrays)
    if split not in decoded:
        raise Refused(f"{path} holds no {split}/CLASS/NUMBER.jpg.", hint="it may be another archive")
    return decoded[split]


def _reopen(path: Path, names: tuple[str, ...], side: int) -> Arrays | None:
    """What was kept; None where nothing is, or nothing of use."""
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile):
        return None
    fits = images.ndim == 4 and images.shape[1:] == (side, side, 3) and labels.shape == images.shape[:1]
    if not fits or images.dtype != np.uint8 or labels.dtype != np.uint8 or labels.max(initial=0) >= len(names):
        return None
    return {"images": images, "labels": labels}


def _keep(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as file:
            np.savez(file, images=arrays["images"], labels=arrays["labels"])
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode(path: Path, names: tuple[str, ...], side: int) -> dict[str, Arrays]:
    """split → its arrays."""
    parts: dict[str, list[tuple[int, int, NDArray[np.uint8]]]] = {}
    for at, (split, number, label, raw) in enumerate(_members(path, names)):
        if at >= _MOST:
            raise Refused(f"{path} holds more than {_MOST:,} pictures.", hint="it may be another archive")
        place = f"{split}/{names[label]}/{number}.jpg"
        parts.setdefault(split, []).append((number, label, _pixels(raw, f"{path}: {place}", side)))
    found: dict[str, Arrays] = {}
    for split, listed in parts.items():
        listed.sort(key=lambda one: one[:2])
        found[split] = {"images": np.stack([pixels for _, _, pixels in listed]),
                        "labels": np.array([label for _, label, _ in listed], np.uint8)}  # fmt: skip
    return found


def _members(path: Path, names: tuple[str, ...]) -> Iterator[tuple[str, int, int, bytes]]:
    """Split, number, label and bytes of every picture; other files are passed over."""
    try:
        with gzip.open(path) as packed, _open_tar(packed, path) as archive:
            for member in archive:
                match = _MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or match[2] not in names:
                    continue
                if not 0 < member.size <= _LARGEST:
                    raise Refused(f"{path}: {member.name} has {member.size:,} bytes.",
                                  hint=f"pictures have 1 … {_LARGEST:,}")  # fmt: skip
                file = archive.extractfile(member)
                assert file is not None
                yield match[1], int(match[3]), names.index(match[2]), file.read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise Refused(f"{path} can't be unpacked: {error}.", hint="the file is damaged or incomplete") from None


def _open_tar(packed: gzip.GzipFile, path: Path) -> tarfile.TarFile:
    bounded: Any = _Bounded(packed, path)
    return tarfile.open(fileobj=bounded, mode="r|")


class _Bounded:
    """A file that ends in a refusal where more is read than any archive needs: headers of tar can claim any length."""

    def __init__(self, file: gzip.GzipFile, path: Path) -> None:
        self._file, self._path, self._left = file, path, _UNPACKED

    def read(self, size: int) -> bytes:
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise Refused(f"{self._path} unpacks to more than {_UNPACKED:,} bytes.",
                          hint="it may be another archive, or a hostile one")  # fmt: skip
        return found


def _pixels(raw: bytes, place: str, side: int) -> NDArray[np.uint8]:
    image = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image.DecompressionBombWarning)  # of sizes that are refused anyway
            with image.open(io.BytesIO(raw), formats=("JPEG",)) as opened:
                if opened.size != (side, side):
                    raise Refused(f"{place} is a picture of {opened.size[0]} × {opened.size[1]}.",
                                  hint=f"all should be {side} × {side}")  # fmt: skip
                return np.asarray(opened.convert("RGB"))
    except (OSError, ValueError, SyntaxError, image.DecompressionBombError, image.DecompressionBombWarning) as error:
        why = str(error).split(" <")[0]  # not where in memory it lies
        raise Refused(f"{place} can't be decoded: {why}.", hint="the file is damaged") from None


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ScrimpError("Decoding JPEG needs Pillow, which is not installed.",
                          hint="pip install 'scrimp[train]'") from error  # fmt: skip
    return Image
