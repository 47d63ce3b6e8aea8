"""A training that can be interrupted: after every epoch, all it needs to go on, in one file beside its directory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrimp.errors import Refused, ScrimpError
from scrimp.sources.json_object import parse_json_object
from scrimp.sources.safetensors_file import SafetensorsFile
from scrimp.store.partial import lock
from scrimp.train.checkpoint import write_arrays
from scrimp.train.qat.course import Course, Epoch, Lessons, enter, recipe_body
from scrimp.train.qat.recipe import Recipe
from scrimp.train.qat.student import Student

_HINT = "start over with --fresh"
_STATE = "state"
_MEMORY = ("mean", "square")
#: No number of a training that goes well is larger: squares of it are float32.
_LARGEST = 1e18
_NEVER_NEGATIVE = (".first", ".largest", ".running_var")
_KINDS = (float, float, float, float, float, str)


def checkpoint_of(out: Path) -> Path:
    """``dir/.name.training``."""
    return out.parent / f".{out.name}.training"


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Nothing else trains ``out`` meanwhile: two would replace each other's checkpoints. ScrimpError where one does."""
    path, held = out.parent / f".{out.name}.lock", f"Another scrimp is training {out}."
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock(descriptor, held)
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise ScrimpError(held, hint="it has just ended: try again")  # what is locked is the file it removed
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def fingerprint(recipe: Recipe, lessons: Lessons) -> str:
    """Of all that decides what comes out: another recipe or other pictures start over."""
    digest = hashlib.sha256(json.dumps(recipe.document, sort_keys=True, default=str).encode())
    for pictures in (lessons.train, lessons.test):
        digest.update(pictures.images.tobytes())
        digest.update(pictures.labels.tobytes())
    if lessons.teacher is not None:
        for values in lessons.teacher.state_dict().values():
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, key: str, course: Course) -> None:
    """The old one or the new one is there, whatever happens."""
    state = {"fingerprint": key, "steps": course.optimizer.steps, "curve": [astuple(epoch) for epoch in course.curve]}
    arrays: dict[str, NDArray[Any]] = {_STATE: np.frombuffer(json.dumps(state).encode(), np.uint8)}
    arrays |= {f"value/{name}": values.numpy() for name, values in _values(course.student).items()}
    for name, memory in course.optimizer.memory.items():
        arrays |= {f"{part}/{name}": kept.numpy() for part, kept in zip(_MEMORY, memory, strict=True)}
    write_arrays(path, arrays)


def resume(path: Path, key: str, recipe: Recipe, course: Course) -> bool:
    """Put the course where a checkpoint of the same job is; leave it where there is none. False where there is one of
    another job.

    Refused when the file is none, or holds anything but what such a checkpoint holds.
    """
    if not path.exists():
        return True
    try:
        file = SafetensorsFile(path)
    except Refused as error:
        raise Refused(error.message, hint=_HINT) from None
    try:
        state = _state(file)
        if state.get("fingerprint") != key:
            return False
        curve, steps = _curve(path, state.get("curve"), recipe, course.student), state.get("steps")
        if type(steps) is not int or not 0 <= steps < 1 << 48:
            raise Refused(f"{path}: it does not say where the run was.", hint=_HINT)
        enter(recipe, course, len(curve) - 1)
        with torch.no_grad():
            for name, values in _values(course.student).items():
                values.copy_(_array(file, f"value/{name}", values))
            for name, memory in course.optimizer.memory.items():
                for part, kept in zip(_MEMORY, memory, strict=True):
                    kept.copy_(_array(file, f"{part}/{name}", kept))
        course.curve[:], course.optimizer.steps = curve, steps
        return True
    finally:
        file.close()


def _values(student: Student) -> dict[str, Tensor]:
    """Parameters and what else changes: running means, first scales."""
    return {name: values.detach() for name, values in student.state_dict().items() if values.is_floating_point()}


def _state(file: SafetensorsFile) -> dict[str, Any]:
    found = file.tensors.get(_STATE)
    if found is None or found.dtype != "U8":
        raise Refused(f"{file.path} is no checkpoint of a training.", hint=_HINT)
    try:
        return parse_json_object(file.bytes_of(_STATE).tobytes(), f"{file.path}: the state")
    except Refused as error:
        raise Refused(error.message, hint=_HINT) from None


def _curve(path: Path, stored: object, recipe: Recipe, student: Student) -> list[Epoch]:
    rows = stored if isinstance(stored, list) and 1 <= len(stored) <= recipe.schedule.epochs else []
    for epoch, row in enumerate(rows):
        fits = isinstance(row, list) and len(row) == len(_KINDS) and all(map(isinstance, row, _KINDS))
        if (
            not fits
            or not all(0 <= number <= _LARGEST for number in row[:-1])
            or row[-1] != recipe.at(recipe_body(student), epoch).spelled
        ):
            rows = []
    if not rows:
        raise Refused(f"{path}: its curve is no list of epochs.", hint=_HINT)
    return [Epoch(*row) for row in rows]


def _array(file: SafetensorsFile, name: str, like: Tensor) -> Tensor:
    stored, shape = file.tensors.get(name), tuple(like.shape)
    if stored is None or (stored.dtype, stored.shape) != ("F32", shape):
        what = "missing" if stored is None else f"{stored.dtype} {list(stored.shape)}"
        raise Refused(f"{file.path}: {name[:80]} is {what}; it must be F32 {list(shape)}.", hint=_HINT)
    values = file.bytes_of(name).view(np.float32).reshape(shape).copy()
    if not (np.abs(values) <= _LARGEST).all():
        raise Refused(f"{file.path}: {name[:80]} holds infinite numbers, NaN, or some that no training comes to.",
                      hint=_HINT)  # fmt: skip
    if (name.endswith(_NEVER_NEGATIVE) or name.startswith(_MEMORY[1])) and (values < 0).any():
        raise Refused(f"{file.path}: {name[:80]} holds negative numbers.", hint=_HINT)
    return torch.from_numpy(values)
