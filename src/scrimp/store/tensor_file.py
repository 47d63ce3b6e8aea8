"""Tensors of anybody in one file: ``scrimp.formats.save`` and ``load``.

A safetensors file: the parts of each tensor under ``<name>.<part>``, on 64-byte boundaries, and what they are under
``scrimp`` in the header's metadata: ``{"w": {"format": "nf4:g64", "shape": [N, K], "dims": [...]}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.sources.checks import check_codes
from scrimp.sources.json_object import parse_json_object
from scrimp.sources.mapped import map_file, unmap
from scrimp.sources.safetensors_file import SafetensorsFile
from scrimp.store.layout import ALIGNMENT, PAD_PREFIX, PART_DTYPES
from scrimp.tensors import DTYPES, QTensor, Stored, from_parts, part_shapes, part_types

_HINT = "the file is damaged or hostile; save the tensors again"
_SIDE = 2**40


def save(path: str | Path, tensors: Mapping[str, QTensor]) -> None:
    """Write ``tensors`` to a new file, complete or not at all.

    >>> import tempfile; from scrimp import formats
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(f"{folder}/w.safetensors", {"w": formats.encode(np.float32([[1, -1]]), "mxfp4")})
    ...     load(f"{folder}/w.safetensors")["w"].decode().tolist()
    [[1.0, -1.0]]
    """
    entries: dict[str, object] = {}
    payload: list[NDArray[np.uint8]] = []
    at = pads = 0
    for name, tensor in tensors.items():
        if not name or not name.isprintable():
            raise UsageError(f"{name!r} is no name for a tensor.", hint="use printable text")
        types = part_types(tensor.format)
        for part, array in tensor.parts().items():
            array = np.ascontiguousarray(array)
            entry = {
                "dtype": PART_DTYPES[types[part]][0],
                "shape": list(array.shape),
                "data_offsets": [at, at + array.nbytes],
            }
            entries[f"{name}.{part}"] = entry
            payload.append(array.reshape(-1).view(np.uint8))
            at += array.nbytes
            if gap := -at % ALIGNMENT:
                entries[f"{PAD_PREFIX}{pads}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [at, at + gap]}
                payload.append(np.zeros(gap, np.uint8))
                at, pads = at + gap, pads + 1
    index = {
        name: {"format": t.format.name, "shape": t.shape, "dims": t.shape if t.dims is None else t.dims}
        for name, t in tensors.items()
    }
    text = json.dumps({"__metadata__": {"format": "scrimp", "scrimp": json.dumps(index)}} | entries).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in payload:
            array.tofile(file)
    partial.replace(path)


def load(path: str | Path) -> dict[str, QTensor]:
    """The tensors of a file, as views of it: nothing is read before it is used. Refused when anything is odd."""
    path = Path(path)
    file = SafetensorsFile(path)
    try:
        return {name: _tensor(file, name, entry) for name, entry in _index(path).items()}
    except BaseException:
        file.close()
        raise


def _index(path: Path) -> dict[str, object]:
    """What the header's metadata says; SafetensorsFile has checked the header around it."""
    data = map_file(path)
    try:
        header = parse_json_object(data[8 : 8 + int.from_bytes(data[:8], "little")], f"{path}: the header")
    finally:
        unmap(data)
    metadata = header.get("__metadata__")
    text = metadata.get("scrimp") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise Refused(f"{path} has no list of scrimp's tensors.", hint="scrimp.formats.load reads what save wrote")
    return parse_json_object(text.encode(), f"{path}: the list of tensors")


def _tensor(file: SafetensorsFile, name: str, entry: object) -> QTensor:
    sides = [entry.get(key) for key in ("shape", "dims")] if isinstance(entry, dict) else [None]
    for side in sides:
        if not isinstance(side, list) or len(side) > 32 or not all(type(n) is int and 0 < n < _SIDE for n in side):
            raise Refused(f"{file.path}: {name[:80]} has no shape.", hint=_HINT)
    if not isinstance(entry, dict) or not isinstance(entry.get("format"), str) or len(entry["shape"]) != 2:
        raise Refused(f"{file.path}: {name[:80]} has no format or no shape [N, K].", hint=_HINT)
    shape, dims = (entry["shape"][0], entry["shape"][1]), tuple(entry["dims"])
    if prod(dims) != prod(shape):
        raise Refused(f"{file.path}: {name[:80]} has {prod(shape):,} weights for {prod(dims):,} numbers.", hint=_HINT)
    try:
        format = parse(entry["format"])
    except UsageError as error:
        raise Refused(f"{file.path}: {name[:80]}: {error.message}", hint="a newer scrimp may know it") from None
    types, parts = part_types(format), {}
    for part, part_shape in part_shapes(format, shape).items():
        parts[part] = _part(file, f"{name}.{part}", types[part], part_shape)
    tensor = from_parts(name, format, shape, parts)
    check_codes(file.path, name, tensor)
    return tensor if dims == shape else replace(tensor, dims=dims)


def _part(file: SafetensorsFile, name: str, kind: str, shape: tuple[int, ...]) -> Stored:
    stored, expected = file.tensors.get(name), PART_DTYPES[kind][0]
    if stored is None or (stored.dtype, stored.shape) != (expected, shape):
        found = "missing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
        raise Refused(f"{file.path}: {name[:80]} is {found}; it must be {expected} {list(shape)}.", hint=_HINT)
    dtype = np.dtype(np.uint8) if kind == "u8" else DTYPES[kind]
    return file.bytes_of(name).view(dtype).reshape(shape)
