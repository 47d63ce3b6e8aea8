"""``RECIPE.toml`` → Recipe. All of it is checked before anything is trained.

::

    seed = 0

    [data]
    set = "mnist"                  # mnist, fashion-mnist, cifar10-jpeg
    size = "16x16"                 # unless given, as they are

    [model]
    name = "mlp"                   # mlp, vgg8, resnet8, depthwise, patches
    hidden = [128, 128, 112]

    [weights]
    format = "ternary:row"         # any format, or "f32"
    rule = "seq"                   # how scales are found (scrimp.train.qat.weights)

    [weights.layers]               # operations that differ; * and ? stand for any letters
    "fc1" = { format = "int8:row", rule = "lsq" }

    [activations]
    kind = "static"                # one learned step each; "dynamic", "float"

    [augmentation]
    rotate = 10

    [schedule]
    epochs = 60
    rate = 2e-3
    float_epochs = 2
    precision = "bf16"             # of products while they learn; twice as fast where the processor has avx512_bf16
    progressive = [["int4:row", 3]]
    freeze = { "conv*" = 50 }

    [distillation]
    teacher = "teacher"            # a store that scrimp train wrote

Paths are relative to the file.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scrimp.errors import Refused, ScrimpError, UsageError, nearest
from scrimp.formats import Format
from scrimp.pictures import SETS
from scrimp.quantize.plan import storable
from scrimp.sources.mapped import check_regular
from scrimp.train.qat.nets import NETS
from scrimp.train.qat.recipe import FLOAT, Augmentation, Data, Distillation, Recipe, Schedule, Weights
from scrimp.train.qat.rules import check_rule, default_rule

T = TypeVar("T")
_FILE_BYTES = 1 << 20
MAX_EPOCHS, MAX_WIDTH, MAX_LAYERS = 100_000, 1 << 16, 64
_TABLES: Mapping[str, type] = {"seed": int, "data": dict, "model": dict, "weights": dict, "activations": dict,
                               "augmentation": dict, "schedule": dict, "distillation": dict}  # fmt: skip
_KINDS: Mapping[type, str] = {str: "a string", int: "a whole number", float: "a number", list: "a list",
                              dict: "a table", bool: "true or false"}  # fmt: skip
#: Ends of what numbers may be: least, most.
_ENDS: Mapping[str, tuple[float, float]] = {
    "crop": (0, 64), "cutout": (0, 256), "rotate": (0, 180), "scale": (0, 0.9), "shear": (0, 60), "shift": (0, 256),
    "elastic": (0, 32), "epochs": (1, MAX_EPOCHS), "batch": (2, 1 << 14), "rate": (1e-9, 100), "weight_decay": (0, 10),
    "warm_up": (0, MAX_EPOCHS), "float_epochs": (0, MAX_EPOCHS), "label_smoothing": (0, 0.9), "temperature": (0.1, 100),
    "soft": (0, 1), "first": (1, 1 << 30), "seed": (0, 1 << 31),
}  # fmt: skip


def read(path: Path) -> Recipe:
    """The recipe of a file. Refused where it is no TOML, UsageError with the key where it asks for the impossible."""
    check_regular(path)
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise Refused(f"{path} has more than {_FILE_BYTES:,} bytes.", hint="this is no recipe")
        document = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:  # TOMLDecodeError, no UTF-8, or a number of thousands of digits
        words = str(error).rstrip(".")
        raise Refused(f"{path} is no TOML: {words:.200}.", hint="recipes/ has examples to begin with") from None
    except RecursionError:
        raise Refused(f"{path} is nested too deeply.", hint="a recipe has tables in two levels") from None
    try:
        return parse_recipe(document, path.parent, path.stem)
    except ScrimpError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None


def parse_recipe(document: Mapping[str, Any], folder: Path, name: str) -> Recipe:
    """The inverse of writing TOML; paths are relative to ``folder``."""
    _check(document, _TABLES, "")
    weights, layers = _weights(document.get("weights", {}))
    model = dict(document.get("model", {}))
    chosen = _choice(model.pop("name", None), list(NETS), "model.name")
    schedule = _schedule(_needed(document, "schedule"))
    before = schedule.float_epochs + sum(epochs for _, epochs in schedule.progressive)
    if before >= schedule.epochs and (schedule.float_epochs or schedule.progressive):
        raise UsageError(f"{before:,} of {schedule.epochs:,} epochs are over before weights take their format.",
                         hint="schedule.epochs counts float_epochs and progressive in")  # fmt: skip
    kind = document.get("activations", {})
    _check(kind, {"kind": str}, "activations")
    seed = _within("seed", document.get("seed", 0), "")
    return Recipe(
        name=name,
        data=_data(_needed(document, "data"), folder),
        model=chosen,
        sizes={key: _widths(value, f"model.{key}") for key, value in model.items()},
        weights=weights,
        layers=layers,
        schedule=schedule,
        activations=_choice(kind.get("kind", "static"), ["static", "dynamic", "float"], "activations.kind"),  # type: ignore[arg-type]
        augmentation=_filled(Augmentation, document.get("augmentation", {}), "augmentation"),
        distillation=_distillation(document["distillation"], folder) if "distillation" in document else None,
        seed=int(seed),
        document=document,
    )


def _data(table: Mapping[str, Any], folder: Path) -> Data:
    _check(table, {"set": str, "size": str, "directory": str, "first": int}, "data")
    size = table.get("size")
    match = re.fullmatch(r"([1-9]\d{0,2})x([1-9]\d{0,2})", size) if size is not None else None
    if size is not None and (match is None or not all(4 <= int(side) <= 256 for side in match.groups())):
        raise UsageError(f"data.size is {size!r:.40}.", hint='write it like "16x16"; sides are 4 … 256')
    if "first" in table:
        _within("first", table["first"], "data")
    return Data(
        _choice(table.get("set"), list(SETS), "data.set"),
        (int(match[1]), int(match[2])) if match else None,
        _path(folder, table["directory"]) if "directory" in table else None,
        table.get("first"),
    )


def _weights(table: Mapping[str, Any]) -> tuple[Weights, dict[str, Weights]]:
    _check(table, {"format": str, "rule": str, "layers": dict}, "weights")
    layers = {}
    for pattern, layer in table.get("layers", {}).items():
        where = f"weights.layers.{pattern}"
        _expect(layer, dict, where)
        _check(layer, {"format": str, "rule": str}, where)
        layers[pattern] = _spelled(layer, where)
    return _spelled(table, "weights"), layers


def _spelled(table: Mapping[str, Any], where: str) -> Weights:
    if "format" not in table:
        raise UsageError(f"{where}.format is missing.", hint='format = "ternary:row", or "f32" for a float network')
    try:
        format = storable(table["format"])
        if format == FLOAT[0]:
            return Weights(*FLOAT)
        return Weights(format, check_rule(format, table["rule"]) if "rule" in table else default_rule(format))
    except ScrimpError as error:
        raise UsageError(f"{where}: {error.message}", hint=error.hint) from None


def _schedule(table: Mapping[str, Any]) -> Schedule:
    plain = {key: value for key, value in table.items() if key not in ("progressive", "freeze")}
    if "epochs" not in plain:
        raise UsageError("schedule.epochs is missing.", hint="epochs = 30")
    if "optimizer" in plain:
        _choice(plain["optimizer"], ["adam", "sgd"], "schedule.optimizer")
    if "precision" in plain:
        _choice(plain["precision"], ["f32", "bf16"], "schedule.precision")
    known = _filled(Schedule, plain, "schedule")
    freeze = _expect(table.get("freeze", {}), dict, "schedule.freeze")
    for glob, epoch in freeze.items():
        _expect(epoch, int, f"schedule.freeze.{glob}")
    stages = _expect(table.get("progressive", []), list, "schedule.progressive")
    return dataclasses.replace(known, progressive=tuple(map(_stage, stages)), freeze=freeze)


def _stage(stage: Any) -> tuple[Format, int]:
    fits = isinstance(stage, list) and len(stage) == 2 and isinstance(stage[0], str) and type(stage[1]) is int
    if not fits or not 1 <= stage[1] <= MAX_EPOCHS:
        raise UsageError(f"schedule.progressive has {stage!r:.40}.", hint='a format and its epochs: ["int4:row", 3]')
    return storable(stage[0]), stage[1]


def _distillation(table: Mapping[str, Any], folder: Path) -> Distillation:
    _check(table, {"teacher": str, "temperature": float, "soft": float}, "distillation")
    if "teacher" not in table:
        raise UsageError("distillation.teacher is missing.", hint="name a store that scrimp train wrote")
    numbers = {key: float(_within(key, table[key], "distillation")) for key in ("temperature", "soft") if key in table}
    return Distillation(_path(folder, table["teacher"]), **numbers)


def _filled(kind: Callable[..., T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass of numbers, words and switches from a table."""
    names = {"int": int, "float": float, "bool": bool}
    known = {one.name: names.get(str(one.type), str) for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _check(table, known, where)
    return kind(**{key: _within(key, value, where) if key in _ENDS else value for key, value in table.items()})


def _widths(value: Any, where: str) -> tuple[int, ...]:
    _expect(value, list, where)
    if len(value) > MAX_LAYERS or not all(type(n) is int and 1 <= n <= MAX_WIDTH for n in value):
        raise UsageError(
            f"{where} is {value!r:.40}.", hint=f"it takes at most {MAX_LAYERS} widths of 1 … {MAX_WIDTH:,}"
        )
    return tuple(value)


def _check(table: Any, known: Mapping[str, type], where: str) -> None:
    """That a table has known keys only, of the right types."""
    _expect(table, dict, where)
    dot = f"{where}." if where else ""
    for name, value in table.items():
        if name not in known:
            hint = nearest(name, list(known)) or f"{where or 'a recipe'} may have {', '.join(known)}"
            raise UsageError(f"nothing is called '{dot}{name:.40}'.", hint=hint)
        _expect(value, known[name], f"{dot}{name}")


def _expect(value: Any, kind: type, where: str) -> Any:
    """The value, where it is of a type; a whole number is a number, and true is none."""
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{where} is {value!r:.40}.", hint=f"it takes {_KINDS[kind]}")
    return value


def _within(name: str, value: Any, where: str) -> Any:
    low, high = _ENDS[name]
    if not low <= value <= high:
        dot = f"{where}." if where else ""
        raise UsageError(f"{dot}{name} is {value!r:.40}.", hint=f"{low:g} … {high:g} are possible")
    return value


def _choice(value: Any, known: list[str], where: str) -> str:
    if value not in known:
        said = "is missing" if value is None else f"is {value!r:.40}"
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise UsageError(f"{where} {said}.", hint=hint or f"it is one of {', '.join(known)}")
    return str(value)


def _needed(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in document:
        raise UsageError(f"[{name}] is missing.", hint="recipes/ has examples to begin with")
    found: Mapping[str, Any] = document[name]
    return found


def _path(folder: Path, name: str) -> Path:
    if "\0" in name or not name:
        raise UsageError(f"{name!r:.40} is no path.", hint="paths are relative to the recipe's file")
    return folder / name
