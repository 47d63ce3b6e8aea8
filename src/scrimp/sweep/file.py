"""``SWEEP.toml`` → what is compressed in which ways, and measured how. All of it is checked before anything is run.

::

    model = "smollm2-135m"              # a path, a catalogue name or a hub id

    [grid]                              # every format and size with every method
    formats = ["int4:g64", "int3:g64"]
    sizes = ["72MB"]
    methods = ["rtn", "gptq+refit"]

    [all]                               # wishes of every cell, as of `scrimp compress`
    embedding = "int8:g64"

    [calibration]                       # of the methods that calibrate
    text = "own.txt"
    windows = 64
    prefix = "joint"                    # or "quantized"; with "original" the network is measured once for all cells

    [evaluation]
    text = "valid.txt"
    context = 512
    max_tokens = 4096

    [[row]]                             # a cell beside the grid
    name = "head in 4 bits"
    format = "int3:g64"
    method = "gptq"
    embedding = "int4:g64"

Paths are relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from scrimp.errors import Refused, ScrimpError, UsageError, nearest
from scrimp.measure.windows import read_text
from scrimp.quantize.methods import method
from scrimp.quantize.wish import Wish
from scrimp.sweep.cell import Cell, Setting, calibrated

#: More would be a typing error.
MAX_CELLS = 4096
_TABLES: dict[str, type | tuple[type, ...]] = {
    "model": str, "reference": str, "grid": dict, "all": dict, "calibration": dict, "evaluation": dict, "row": list,
}  # fmt: skip
_GRID: dict[str, type | tuple[type, ...]] = {"formats": list, "sizes": list, "methods": list}
_CALIBRATION: dict[str, type | tuple[type, ...]] = {"text": str, "windows": int, "prefix": str}
_EVALUATION: dict[str, type | tuple[type, ...]] = {"text": str, "context": int, "max_tokens": int}
_KINDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    list: "a list",
    dict: "a table",
    bool: "true or false",
}


@dataclass(frozen=True, slots=True)
class Sweep:
    setting: Setting
    cells: tuple[Cell, ...]


def read(path: Path) -> Sweep:
    """The sweep of a file. Refused where it is no TOML, UsageError with the key where it asks for what there is not."""
    try:
        document = tomllib.loads(read_text(path))
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise Refused(
            f"{path} is no TOML: {_sentence(str(error))}",
            hint='begin with model = "smollm2-135m", then [grid] with formats and methods',
        ) from None
    except RecursionError:
        raise Refused(f"{path} is nested too deeply.", hint="a sweep has tables in one level") from None
    try:
        return _sweep(document, path.parent)
    except ScrimpError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None


def _sweep(document: Mapping[str, Any], folder: Path) -> Sweep:
    _check(document, _TABLES, "")
    if "model" not in document:
        raise UsageError("no model is named.", hint='model = "smollm2-135m"')
    evaluation = document.get("evaluation", {})
    _check(evaluation, _EVALUATION, "evaluation")
    model = _model(document["model"], folder)
    setting = Setting(
        model,
        _model(document["reference"], folder) if "reference" in document else model,
        read_text(_path(folder, evaluation["text"])) if "text" in evaluation else None,
        **{name: evaluation[name] for name in ("context", "max_tokens") if name in evaluation},
    )
    shared = {**document.get("all", {}), **_calibration(document.get("calibration", {}))}
    cells = [*_grid(document.get("grid", {}), shared, folder), *_rows(document.get("row", []), shared, folder)]
    if not cells:
        raise UsageError("there is nothing to compress.", hint="a [grid] needs formats or sizes; or write a [[row]]")
    _check_twins(cells)
    return Sweep(setting, tuple(cells))


def _grid(grid: Mapping[str, Any], shared: Mapping[str, Any], folder: Path) -> list[Cell]:
    _check(grid, _GRID, "grid")
    goals = [(field, goal) for field, key in (("format", "formats"), ("size", "sizes")) for goal in grid.get(key, [])]
    methods = grid.get("methods", [])
    if goals and not methods:
        raise UsageError("grid.methods is missing.", hint='methods = ["rtn"]')
    if len(goals) * len(methods) > MAX_CELLS:
        raise UsageError(f"the grid has {len(goals) * len(methods):,} cells.", hint=f"{MAX_CELLS:,} are possible")
    return [
        Cell(f"{goal} {name}", _wish({**shared, field: goal, "method": name}, f"grid, {goal!r} with {name!r}", folder))
        for field, goal in goals
        for name in methods
    ]


def _rows(rows: Sequence[Any], shared: Mapping[str, Any], folder: Path) -> list[Cell]:
    if len(rows) > MAX_CELLS:
        raise UsageError(f"there are {len(rows):,} rows.", hint=f"{MAX_CELLS:,} are possible")
    cells = []
    for at, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UsageError(f"row {at} is no table.", hint="write [[row]]")
        asked = {name: value for name, value in row.items() if name != "name"}
        wish = _wish({**shared, **asked}, f"row {at}", folder)
        name = row.get("name", " ".join(str(value) for value in asked.values()))
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise UsageError(f"row {at}: name is no line of text.", hint='name = "head in 4 bits"')
        cells.append(Cell(name, wish))
    return cells


def _calibration(table: Mapping[str, Any]) -> dict[str, Any]:
    """As the fields of a Wish."""
    _check(table, _CALIBRATION, "calibration")
    names = {"text": "calibrate", "windows": "calibrate_windows", "prefix": "calibrate_prefix"}
    return {names[name]: value for name, value in table.items()}


def _wish(asked: Mapping[str, Any], where: str, folder: Path) -> Wish:
    """Checked, with the texts it names read; without a calibration where no method of it calibrates."""
    kinds = {field.name: str(field.type) for field in fields(Wish)}
    for name, value in asked.items():
        if name not in kinds:
            hint = nearest(name, list(kinds)) or f"a cell may have {', '.join(kinds)}"
            raise UsageError(f"{where}: nothing is called '{name}'.", hint=hint)
        if not _is(value, kinds[name]):
            raise UsageError(
                f"{where}: {name} is {value!r:.40}.", hint=f"it takes {kinds[name].replace(' | None', '')}"
            )
    try:
        given = dict(asked)
        if "tokenizer" in given:
            given["tokenizer"] = _path(folder, given["tokenizer"])
        if "calibrate" in given:
            given["calibrate"] = read_text(_path(folder, given["calibrate"]))
        wish = Wish(**given)
        method(wish.method)
        return wish if calibrated(wish) else replace(wish, calibrate=None, calibrate_windows=None)
    except ScrimpError as error:
        raise type(error)(f"{where}: {error.message}", hint=error.hint) from None


def _is(value: Any, annotation: str) -> bool:
    """Whether a value of TOML fits the annotation of a field of Wish."""
    kinds = annotation.split(" | ")
    if isinstance(value, bool):
        return "bool" in kinds
    if isinstance(value, list):
        return "Sequence[str]" in kinds and all(isinstance(entry, str) for entry in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63 and ("int" in kinds or "float" in kinds)
    if isinstance(value, float):
        return "float" in kinds
    return isinstance(value, str) and not {"str", "Path", "Prefix"}.isdisjoint(kinds)


def _check(table: Mapping[str, Any], known: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    dot = f"{where}." if where else ""
    for name, value in table.items():
        if name not in known:
            hint = nearest(name, list(known)) or f"{where or 'a sweep'} may have {', '.join(known)}"
            raise UsageError(f"nothing is called '{dot}{name}'.", hint=hint)
        kind = known[name]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            assert isinstance(kind, type)
            raise UsageError(f"{dot}{name} is {value!r:.40}.", hint=f"it takes {_KINDS[kind]}")


def _check_twins(cells: Sequence[Cell]) -> None:
    names: set[str] = set()
    for cell in cells:
        if cell.name in names:
            raise UsageError(f"two cells are called '{cell.name}'.", hint="give one of them another name")
        names.add(cell.name)


def _model(name: str, folder: Path) -> str:
    """A path that exists beside the file, absolute; else a catalogue name or a hub id, as it is."""
    path = folder / name
    return str(path.resolve()) if name and path.exists() else name


def _path(folder: Path, name: str) -> Path:
    if "\0" in name:
        raise UsageError(f"{name!r:.40} is no path.", hint="paths are relative to the sweep's file")
    return folder / name


def _sentence(words: str) -> str:
    return words.rstrip(".") + "."
