"""Where every part of every tensor lies in ``model.safetensors``: known before the first weight is read.

A matrix is the parts ``<name>.codes``, ``.scales``, … (tensors.py has all names and shapes); a vector is float32 under
its own name. Every part starts on a 64-byte boundary of the file. safetensors files have no holes, so where a part's
size is no multiple of 64 a tensor ``__pad__.<n>`` of zero bytes follows it; the header ends in spaces.

A packed store has one part ``<name>.coded`` per tensor, whose size nobody knows before (store/coded.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from scrimp.formats import Format
from scrimp.tensors import part_shapes, part_types

ALIGNMENT = 64
PAD_PREFIX = "__pad__."
MODEL_FILE = "model.safetensors"
#: The one part of a tensor in a packed store.
CODED = "coded"

#: What a part holds (``tensors.part_types``) → (safetensors dtype, bytes).
PART_DTYPES = {"u8": ("U8", 1), "f16": ("F16", 2), "bf16": ("BF16", 2), "f32": ("F32", 4)}


@dataclass(frozen=True, slots=True)
class Part:
    """A range of the file; ``offset`` counts from its start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    header: bytes  #: all bytes before the first part: length, JSON, spaces
    parts: Mapping[str, tuple[Part, ...]]  #: tensor → its parts, in file order
    file_bytes: int


def lay_out(shapes: Mapping[str, tuple[int, ...]], formats: Mapping[str, Format]) -> Layout:
    """Place every tensor of ``shapes`` in order; those without a Format are float32 vectors."""
    entries: dict[str, object] = {"__metadata__": {"format": "scrimp"}}
    found: dict[str, list[Part]] = {}
    at = pads = 0
    for tensor, shape in shapes.items():
        found[tensor] = []
        for name, dtype, part_shape, nbytes in expected_parts(tensor, shape, formats.get(tensor)):
            found[tensor].append(Part(name, dtype, part_shape, at, nbytes))
            entries[name] = _entry(dtype, part_shape, at, nbytes)
            at += nbytes
            if gap := -at % ALIGNMENT:
                entries[f"{PAD_PREFIX}{pads}"] = _entry("U8", (gap,), at, gap)
                at, pads = at + gap, pads + 1
    header = _header(json.dumps(entries, separators=(",", ":")).encode())
    placed = {
        tensor: tuple(Part(p.name, p.dtype, p.shape, p.offset + len(header), p.nbytes) for p in parts)
        for tensor, parts in found.items()
    }
    return Layout(header, placed, len(header) + at)


@dataclass(frozen=True, slots=True)
class CodedLayout:
    """A packed store: tensors of unknown size behind a header of known room."""

    names: frozenset[str]
    header_bytes: int
    file_bytes: int  #: at most


def lay_out_coded(layout: Layout) -> CodedLayout:
    """Room for the tensors of a plain store, packed: no header of theirs can be longer."""
    bound = layout.file_bytes + 2 * ALIGNMENT * sum(map(len, layout.parts.values()))
    worst = [(coded_part(tensor), bound, bound | 1) for tensor in layout.parts]  # every one with a gap behind it
    header_bytes = len(coded_header(worst, 0))
    return CodedLayout(frozenset(layout.parts), header_bytes, header_bytes + bound)


def coded_header(places: Iterable[tuple[str, int, int]], header_bytes: int) -> bytes:
    """The header of a packed store in that room, or in as much as it needs.

    ``places``: name, offset in the file and bytes of each tensor, in file order.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "scrimp"}}
    for pads, (name, offset, nbytes) in enumerate(places):
        at = offset - header_bytes
        entries[name] = _entry("U8", (nbytes,), at, nbytes)
        if gap := -nbytes % ALIGNMENT:
            entries[f"{PAD_PREFIX}{pads}"] = _entry("U8", (gap,), at + nbytes, gap)
    text = json.dumps(entries, separators=(",", ":")).encode()
    return _header(text + b" " * (header_bytes - 8 - len(text)))


def _header(text: bytes) -> bytes:
    """The length of the text, and the text, with spaces up to a boundary."""
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def expected_parts(
    tensor: str, shape: tuple[int, ...], format: Format | None
) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape and bytes of each part a tensor must have."""
    if format is None:
        return [(tensor, "F32", shape, 4 * _count(shape))]
    parts, types = [], part_types(format)
    for part, part_shape in part_shapes(format, (shape[0], shape[1])).items():
        dtype, width = PART_DTYPES[types[part]]
        parts.append((f"{tensor}.{part}", dtype, part_shape, width * _count(part_shape)))
    return parts


def _entry(dtype: str, shape: tuple[int, ...], offset: int, nbytes: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}


def coded_part(name: str) -> str:
    """What a tensor is called in the file of a packed store."""
    return f"{name}.{CODED}"


def _count(shape: tuple[int, ...]) -> int:
    return prod(shape)
