"""``mnist:test@16x16`` → Pictures. The data lies in a directory of the user's; scrimp brings none and fetches none."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from scrimp.errors import Refused, ScrimpError, UsageError, nearest
from scrimp.pictures.idx import read_idx
from scrimp.pictures.jpeg_archive import read_archive
from scrimp.pictures.pictures import Pictures

#: Where data lies unless a flag or a recipe says so.
VARIABLE = "SCRIMP_DATA"
#: Where Debian's dataset-fashion-mnist puts it.
_DEBIAN = Path("/usr/share/datasets")
_SPEC = re.compile(r"([a-z0-9-]+):(train|test)(?:@(\d{1,3})x(\d{1,3}))?")
_IDX = {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Set:
    """One data set: where it lies under the directory of the data, and what it is."""

    place: str  #: a directory of IDX files, or an archive of JPEGs
    names: tuple[str, ...]
    side: int
    channels: int


SETS = {
    "mnist": Set("mnist", tuple("0123456789"), 28, 1),
    "fashion-mnist": Set("fashion-mnist", ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
                                           "sneaker", "bag", "ankle boot"), 28, 1),
    "cifar10-jpeg": Set("cifar10_jpeg_files.tar.gz", ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog",
                                                      "horse", "ship", "truck"), 32, 3),
}  # fmt: skip


def load(spec: str, directory: Path | None = None) -> Pictures:
    """``SET:train`` or ``SET:test``, ``@HEIGHTxWIDTH`` for another size (:func:`~scrimp.pictures.pictures.resize`).

    ``directory`` holds ``mnist/``, ``fashion-mnist/`` (IDX files, packed by gzip or not) and
    ``cifar10_jpeg_files.tar.gz``; ``$SCRIMP_DATA`` unless given.
    UsageError for what is no such name, ScrimpError where the data is missing, Refused where it is something else.
    """
    match = _SPEC.fullmatch(spec)
    if match is None or match[1] not in SETS:
        name = spec.split(":")[0]
        raise UsageError(f"'{spec[:80]}' names no pictures.",
                         hint=nearest(name, list(SETS)) if name not in SETS and nearest(name, list(SETS))
                         else f"write SET:test, SET:train or SET:test@16x16, SET one of {', '.join(SETS)}")  # fmt: skip
    chosen, split = SETS[match[1]], match[2]
    found = _read(chosen, split, _root(directory, chosen))
    if match[3] is None:
        return found
    height, width = int(match[3]), int(match[4])
    if not (1 <= height <= 256 and 1 <= width <= 256):
        raise UsageError(f"Pictures of {height} × {width}.", hint="sides are 1 … 256")
    return found.resized(height, width)


def _root(directory: Path | None, chosen: Set) -> Path:
    """The directory that the set lies in."""
    said = directory if directory is not None else Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
    places = ([] if said is None else [said]) + [_DEBIAN]
    for place in places:
        if (place / chosen.place).exists():
            return place
    where = "no directory of data is named" if said is None else f"{said / chosen.place} does not exist"
    raise ScrimpError(f"The pictures are missing: {where}.",
                      hint=f"--data DIR or {VARIABLE}=DIR, where DIR/{chosen.place} {_held(chosen)}")  # fmt: skip


def _held(chosen: Set) -> str:
    if chosen.channels == 3:
        return "is a .tar.gz of train|test/CLASS/NUMBER.jpg"
    return f"holds {_IDX['train'][0]}.gz and three more"


def _read(chosen: Set, split: str, root: Path) -> Pictures:
    place = root / chosen.place
    if place.is_file():
        return Pictures(**read_archive(place, split, chosen.names, chosen.side), names=chosen.names)
    images, labels = (read_idx(_one(place, stem), sides) for stem, sides in zip(_IDX[split], (3, 1), strict=True))
    if images.shape[1:] != (chosen.side, chosen.side) or len(labels) != len(images):
        raise Refused(f"{place}: {len(labels):,} labels for {' × '.join(map(str, images.shape))} bytes of pictures.",
                      hint=f"pictures of {chosen.side} × {chosen.side} and a label for each are expected")  # fmt: skip
    if labels.max() >= len(chosen.names):
        raise Refused(f"{place}: a label is {labels.max()}.", hint=f"labels are 0 … {len(chosen.names) - 1}")
    return Pictures(images[..., None], labels, chosen.names)


def _one(place: Path, stem: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (place / name).exists():
            return place / name
    raise ScrimpError(f"{place / stem}.gz does not exist.", hint="the directory of the data is incomplete")
