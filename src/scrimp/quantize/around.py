"""The methods with side-cars, by the first word of a name: ``lowrank:16+gptq``, ``quip+gptq+refit``, ``llm_int8``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.models.sidecars import Rotation, eligible, rotations
from scrimp.program import Program
from scrimp.quantize import llm_int8, lowrank, quip
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32

#: How they are spelled, for people.
SPELLINGS = ("lowrank:R", "quip", "llm_int8")
_PATTERN = re.compile(r"lowrank:([1-9]\d{0,4})|quip(?::([1-9]\d{0,3})x([1-9]\d{0,3}))?|llm_int8")


@dataclass(frozen=True, slots=True)
class Around:
    """What a method does around another one, which rounds."""

    run: Callable[[Quantize, F32, Format, Statistics | None], Quantized]
    beside: Callable[[tuple[int, int]], dict[str, SideCar]]  #: the side-cars of a matrix ``(N, K)``
    first: str  #: the method that rounds, where none is named
    source: str


def split(name: str) -> tuple[str, str, str]:
    """A method's name → what comes before the word of a side-car, that word, and the rest with its default.

    >>> split("awq+lowrank:16+gptq+refit"), split("quip"), split("gptq")
    (('awq+', 'lowrank:16', 'gptq+refit'), ('', 'quip', 'gptq'), ('', '', 'gptq'))
    """
    words = name.split("+")
    for at, word in enumerate(words):
        if (found := around(word)) is not None:
            before = "".join(f"{other}+" for other in words[:at])
            return before, word, "+".join(words[at + 1 :]) or found.first
    return "", "", name


def around(word: str) -> Around | None:
    """What a word does around the method that follows; None for a word that means nothing here."""
    found = _PATTERN.fullmatch(word)
    if found is None:
        return None
    if found[1] is not None:
        rank = int(found[1])
        return Around(
            lambda first, weight, format, statistics: lowrank.quantize(first, weight, format, statistics, rank),
            lambda shape: lowrank.needs(shape, rank),
            "gptq",
            "Zhang et al. 2024, LQER, arXiv:2402.02446",
        )
    if word == "llm_int8":
        return Around(llm_int8.quantize, llm_int8.needs, "rtn", "Dettmers et al. 2022, arXiv:2208.07339")
    rotation = Rotation(quip.SEED, int(found[2] or 1), int(found[3] or 1))
    return Around(
        lambda first, weight, format, statistics: quip.quantize(first, weight, format, statistics, rotation),
        lambda shape: quip.needs(shape, rotation),
        "gptq",
        "Chee et al. 2023, arXiv:2307.13304; Tseng et al. 2024, arXiv:2402.04396",
    )


def alone(name: str) -> str:
    """The method without its side-car.

    >>> alone("awq+lowrank:16+gptq")
    'awq+gptq'
    """
    before, _, rest = split(name)
    return before + rest


def unfolded(name: str) -> str:
    """The method without what ``fitted`` found for one shape of matrix.

    >>> unfolded("quip:1x3+gptq"), unfolded("rtn")
    ('quip+gptq', 'rtn')
    """
    before, word, rest = split(name)
    return f"{before}quip+{rest}" if word.startswith("quip") else name


def fitted(program: Program, methods: dict[str, str]) -> dict[str, str]:
    """The method of each matrix as it works in this network.

    A matrix that is looked up, used twice or makes the logits gets no side-car, but the method that rounds. ``quip``
    rotates the values of an attention head by head (``quip:1x3``) where that saves rotating its results (``quip:9x1``).
    """
    may = eligible(program)
    found = {name: method if name in may else alone(method) for name, method in methods.items()}
    turned = [name for name, method in found.items() if split(method)[1] == "quip"]
    for name, rotation in rotations(program, turned, quip.SEED).items():
        if (rotation.inputs, rotation.outputs) != (1, 1):
            before, _, rest = split(found[name])
            found[name] = f"{before}quip:{rotation.inputs}x{rotation.outputs}+{rest}"
    return found
