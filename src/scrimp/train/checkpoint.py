"""A run that can be interrupted: all it needs to go on, in one safetensors file beside the directory it writes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from scrimp.errors import Refused, ScrimpError
from scrimp.sources.checks import check_codes, check_finite
from scrimp.sources.json_object import parse_json_object
from scrimp.sources.safetensors_file import SafetensorsFile
from scrimp.store.layout import PART_DTYPES, expected_parts
from scrimp.tensors import DTYPES, F32, QTensor, Stored, from_parts, part_types
from scrimp.train.adam import Adam, flat
from scrimp.train.end_to_end import Course, Point
from scrimp.train.settings import MAX_STEPS
from scrimp.train.student import Student

_HINT = "start over with --fresh"
#: The JSON of everything that is no tensor.
_STATE = "state"
#: Adam's memory of a parameter, under names of its own.
_MEMORY = ("mean", "square")


def checkpoint_of(out: Path) -> Path:
    """``dir/.name.recovery``."""
    return out.parent / f".{out.name}.recovery"


def save(path: Path, fingerprint: str, student: Student, optimizer: Adam, course: Course) -> None:
    """Write a checkpoint: the old one or the new one is there, whatever happens."""
    state = {
        "fingerprint": fingerprint, "step": course.step, "seconds": course.seconds, "ended": course.ended,
        "curve": [astuple(point) for point in course.curve],
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8)}
    for name, values in flat(student.parameters()).items():
        arrays[f"value/{name}"] = values.detach().numpy()
        for part, memory in zip(_MEMORY, optimizer.memory[name], strict=True):
            arrays[f"{part}/{name}"] = memory.numpy()
    for name, tensor in course.best.items():
        parts = tensor.parts() if isinstance(tensor, QTensor) else {"": tensor}
        arrays |= {f"best/{name}.{part}".rstrip("."): np.ascontiguousarray(part_) for part, part_ in parts.items()}
    write_arrays(path, arrays)


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """A safetensors file: the old one or the new one is there, whatever happens."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        save_file(arrays, temporary)
    except SafetensorError as error:  # a full disk, or a place that is none
        temporary.unlink(missing_ok=True)
        hint = "make room, or name another place with -o"
        raise ScrimpError(f"{path} cannot be written: {error}.", hint=hint) from None
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def resume(path: Path, fingerprint: str, student: Student, optimizer: Adam) -> Course:
    """The course a checkpoint of the same job is at, student and optimizer put there; a new one where there is none.

    Refused when the file is none, or holds anything but what such a checkpoint holds.
    """
    if not path.exists():
        return Course()
    try:
        file = SafetensorsFile(path)
    except Refused as error:
        raise Refused(error.message, hint=_HINT) from None
    try:
        state = _state(file)
        if state.get("fingerprint") != fingerprint:
            return Course()
        return _restore(file, state, student, optimizer)
    finally:
        file.close()


def _restore(file: SafetensorsFile, state: Mapping[str, Any], student: Student, optimizer: Adam) -> Course:
    step, seconds, ended = state.get("step"), state.get("seconds", -1), state.get("ended")
    if type(step) is not int or not 0 <= step <= MAX_STEPS or not _positive(seconds) or not isinstance(ended, str):
        raise Refused(f"{file.path}: it does not say where the run was.", hint=_HINT)
    course = Course(step, float(seconds), _curve(file.path, state.get("curve"), step), _best(file, student), ended[:80])
    parameters = flat(student.parameters())
    read = {
        (part, name): _array(file, f"{part}/{name}", tuple(values.shape))
        for name, values in parameters.items()
        for part in ("value", *_MEMORY)
    }
    if any((read["square", name] < 0).any() for name in parameters):
        raise Refused(f"{file.path}: a mean of squares is negative.", hint=_HINT)
    for name, values in parameters.items():
        values.data.copy_(read["value", name])
        for part, memory in zip(_MEMORY, optimizer.memory[name], strict=True):
            memory.copy_(read[part, name])
    student.settle()
    return course


def _state(file: SafetensorsFile) -> dict[str, Any]:
    found = file.tensors.get(_STATE)
    if found is None or found.dtype != "U8":
        raise Refused(f"{file.path} is no checkpoint of a recovery.", hint=_HINT)
    return parse_json_object(file.bytes_of(_STATE).tobytes(), f"{file.path}: the state")


def _curve(path: Path, stored: object, step: int) -> list[Point]:
    points = stored if isinstance(stored, list) else []
    for point in points:
        fits = isinstance(point, list) and len(point) == 3 and type(point[0]) is int and 0 <= point[0] <= step
        if not fits or not all(map(_positive, point[1:])):
            points = []
    if not points:
        raise Refused(f"{path}: its curve is no list of steps, seconds and losses.", hint=_HINT)
    return [Point(point[0], float(point[1]), float(point[2])) for point in points]


def _best(file: SafetensorsFile, student: Student) -> dict[str, QTensor | F32]:
    found: dict[str, QTensor | F32] = {}
    program = student.network.program
    for name, shape in program.matrices.items():
        format, parts = student.format(name), {}
        types = part_types(format)
        for full, dtype, part_shape, _ in expected_parts(name, shape, format):
            part = full.removeprefix(f"{name}.")
            stored = "U16" if dtype == "BF16" else dtype
            kind = np.dtype(np.uint8) if types[part] == "u8" else DTYPES[types[part]]
            parts[part] = _stored(file, f"best/{full}", stored, part_shape, kind)
        tensor = from_parts(name, format, shape, parts)
        check_finite(file.path, name, tensor)
        check_codes(file.path, name, tensor)
        found[name] = tensor
    for name, size in program.vectors.items():
        found[name] = _array(file, f"best/{name}", (size,)).numpy()
    return found


def _array(file: SafetensorsFile, name: str, shape: tuple[int, ...]) -> Tensor:
    """Finite float32."""
    values = _stored(file, name, PART_DTYPES["f32"][0], shape, np.dtype(np.float32))
    if not np.isfinite(values.astype(np.float32)).all():
        raise Refused(f"{file.path}: {name[:80]} holds infinite numbers or NaN.", hint=_HINT)
    return torch.from_numpy(values)


def _stored(file: SafetensorsFile, name: str, dtype: str, shape: tuple[int, ...], kind: np.dtype[np.generic]) -> Stored:
    """A copy of what lies in the file."""
    stored = file.tensors.get(name)
    if stored is None or (stored.dtype, stored.shape) != (dtype, shape):
        what = "missing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
        raise Refused(f"{file.path}: {name[:80]} is {what}; it must be {dtype} {list(shape)}.", hint=_HINT)
    return file.bytes_of(name).view(kind).reshape(shape).copy()


def _positive(value: object) -> bool:
    """A finite number, 0 or more."""
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
