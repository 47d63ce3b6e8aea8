"""A Plan: which Format and which Method every matrix of a network gets. Vectors stay float32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from scrimp.errors import UsageError, nearest
from scrimp.formats import Format, parse
from scrimp.formats.floats import Exponent
from scrimp.formats.format import SCALE_BITS
from scrimp.models import bert
from scrimp.models.llama import EMBEDDING, HEAD
from scrimp.models.sidecars import owner
from scrimp.quantize.methods import METHODS, REWRITES, is_method, method
from scrimp.quantize.quantized import SideCar
from scrimp.sources.source import Source
from scrimp.tensors import QTensor, stored_bytes

#: The method of tensors that keep what the source stores.
KEEP = "keep"
#: The two ends of a network are more sensitive than its body, and read once per token.
ENDS = (EMBEDDING, HEAD, bert.WORDS, bert.POSITIONS, bert.TYPES)
ENDS_FORMAT = parse("int8:g64")


@dataclass(frozen=True, slots=True)
class Choice:
    """A matrix's Format and the method that fills it."""

    format: Format
    method: str

    def __str__(self) -> str:
        return f"{self.format.name}@{self.method}"


@dataclass(frozen=True, slots=True)
class Rule:
    """``GLOB=FORMAT[@METHOD]``: tensors whose name, with or without ``.weight``, matches ``glob`` get ``choice``."""

    glob: str
    choice: Choice

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.glob) or fnmatchcase(name.removesuffix(".weight"), self.glob)


@dataclass(frozen=True, slots=True)
class Plan:
    """``choices`` of the matrices and ``shapes`` of all tensors of the network, in the order they are stored.

    ``beside`` holds the side-cars of a matrix by their suffix; they are stored before it.
    """

    shapes: Mapping[str, tuple[int, ...]]
    choices: Mapping[str, Choice]
    beside: Mapping[str, Mapping[str, SideCar]] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Numbers in the original network, however they are stored."""
        return sum(_count(shape) for shape in self.shapes.values())

    def tensor_bytes(self, name: str) -> int:
        """Bytes a tensor will take, with what stands beside it: codes, scales, mins and padding."""
        own = SideCar(self.shapes[name], self.choices[name].format if name in self.choices else None)
        return sum(map(_bytes, (own, *self.beside.get(name, {}).values())))

    @property
    def stored(self) -> dict[str, SideCar]:
        """Shape and Format of all tensors of the file, in its order."""
        found: dict[str, SideCar] = {}
        for name, shape in self.shapes.items():
            found |= {f"{name}.{suffix}": car for suffix, car in self.beside.get(name, {}).items()}
            found[name] = SideCar(shape, self.choices[name].format if name in self.choices else None)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, exactly."""
        return sum(_bytes(car) for car in self.stored.values())


def parse_choice(text: str, default_method: str) -> Choice:
    """Read ``FORMAT[@METHOD]``. What follows the last ``@`` is a method if one is called so, else a scale type.

    No method is called like a scale type, so every text has one reading.

    >>> str(parse_choice("int4:g64@bf16@rtn:absmax", "rtn")), str(parse_choice("int4@f32", "rtn"))
    ('int4:g64@bf16@rtn:absmax', 'int4:g64@f32@rtn')
    """
    format, at, last = text.rpartition("@")
    if at and is_method(last):
        return Choice(storable(format), last)
    if at and last not in SCALE_BITS:
        hint = (
            nearest(last, [*METHODS, *REWRITES, *SCALE_BITS]) or f"the methods are {', '.join((*METHODS, *REWRITES))}"
        )
        raise UsageError(f"'{text}': '{last}' is neither a method nor a scale type.", hint=hint)
    return Choice(storable(text), default_method)


def parse_rule(text: str, default_method: str) -> Rule:
    """Read ``GLOB=FORMAT[@METHOD]``."""
    glob, equals, choice = text.partition("=")
    if not equals or not glob or not choice:
        raise UsageError(f"'{text}' is no rule.", hint="write GLOB=FORMAT[@METHOD], like '*.down_proj=int8:g64@rtn'")
    return Rule(glob, parse_choice(choice, default_method))


def make(
    source: Source,
    body: Format,
    *,
    method_name: str = "rtn",
    embedding: Format | None = None,
    rules: Iterable[Rule] = (),
) -> Plan:
    """``body`` for the matrices of the body; the last rule that matches a name wins over everything.

    Embedding and head take ``embedding``; without one int8:g64, or ``body`` where that has eight bits or more.
    """
    method(method_name)
    if embedding is None:
        embedding = body if body.element.bits >= ENDS_FORMAT.element.bits else ENDS_FORMAT
    shapes = {name: info.shape for name, info in source.tensors.items()}
    choices = {
        name: Choice(embedding if name in ENDS else body, method_name) for name in shapes if len(shapes[name]) == 2
    }
    for rule in rules:
        matched = [name for name in choices if rule.matches(name)]
        if not matched:
            raise UsageError(f"The rule '{rule.glob}' matches no matrix.", hint=_closest(rule, shapes, list(choices)))
        choices.update(dict.fromkeys(matched, rule.choice))
    return Plan(shapes, choices)


def keep(source: Source) -> Plan:
    """Every matrix in the Format equal to what the source stores. Reads each tensor once, since only reading tells."""
    choices: dict[str, Choice] = {}
    beside: dict[str, dict[str, SideCar]] = {}
    for name, info in source.tensors.items():
        tensor = source.read(name) if len(info.shape) == 2 else None
        format = tensor.format if isinstance(tensor, QTensor) else None
        if (matrix := owner(name)) is not None:
            beside.setdefault(matrix, {})[name.removeprefix(f"{matrix}.")] = SideCar(info.shape, format)
        elif format is not None:
            choices[name] = Choice(format, KEEP)
    shapes = {name: info.shape for name, info in source.tensors.items() if owner(name) is None}
    return Plan(shapes, choices, beside)


def _closest(rule: Rule, shapes: Mapping[str, tuple[int, ...]], matrices: list[str]) -> str:
    if any(rule.matches(name) for name in shapes):
        return "it matches only vectors, and those stay float32"
    parts = sorted({part for name in matrices for part in (name.removesuffix(".weight"), name.split(".")[-2])})
    return (
        nearest(rule.glob.strip("*."), parts)
        or f"names look like {matrices[len(matrices) // 2]}; * stands for anything"
    )


def _bytes(stored: SideCar) -> int:
    if stored.format is None:
        return 4 * _count(stored.shape)
    return stored_bytes(stored.format, (stored.shape[0], stored.shape[1]))


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def storable(text: str) -> Format:
    """The Format of that name; UsageError for one that has no sign, which weights need."""
    format = parse(text)
    if isinstance(format.element.spec, Exponent):
        raise UsageError(
            f"{format.name} has neither sign nor zero, and weights have both.",
            hint="it is a type of scales: write one behind an @, like int4:g32@e8m0",
        )
    return format
