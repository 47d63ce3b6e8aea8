"""The methods: how codes and scales are chosen, by the names used in flags, plans and reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError, nearest
from scrimp.formats import Format
from scrimp.quantize import descent, gptq, hqq, refit, rtn
from scrimp.quantize.around import SPELLINGS, around, split
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32, QTensor

#: ``(tensor, the weight (N, K) it was made of, statistics) → a better tensor``
Refine = Callable[[QTensor, F32, Statistics | None], QTensor]


@dataclass(frozen=True, slots=True)
class Method:
    """How a matrix is quantized. ``method(weight, format, statistics)`` gives the tensor, ``run`` its notes too."""

    run: Quantize
    calibrated: bool  #: whether it needs statistics of what the layer reads
    source: str  #: where it was published
    beside: Callable[[tuple[int, int]], dict[str, SideCar]] | None = None  #: the side-cars of a matrix (N, K), if any

    def __call__(self, weight: F32, format: Format, statistics: Statistics | None = None) -> QTensor:
        return self.run(weight, format, statistics).tensor


def _plain(scale: rtn.Scale) -> Quantize:
    return lambda weight, format, _: Quantized(rtn.quantize(weight, format, scale=scale))


_FIRST = {
    "rtn": Method(_plain("mse"), False, "nearest level, scales of least squared error"),
    "rtn:absmax": Method(_plain("absmax"), False, "nearest level, scales that clip nothing"),
    "hqq": Method(hqq.quantize, False, "Badri & Shaji 2023, Half-Quadratic Quantization"),
    "gptq": Method(gptq.quantize, True, "Frantar et al. 2022, arXiv:2210.17323"),
}
_THEN: dict[str, tuple[Refine, str]] = {
    "refit": (refit.refine, "scales by least squares on the layer's output, ours"),
    "descent": (descent.refine, "Behdin et al. 2023, arXiv:2309.01885, with refitted scales"),
}


def _refined(first: Method, refine: Refine, source: str) -> Method:
    def run(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
        found = first.run(weight, format, statistics)
        return replace(found, tensor=refine(found.tensor, weight, statistics))

    return Method(run, True, f"{first.source}; {source}")


#: What may stand before a method, for people.
_WORDS = ", ".join(f"{word}+" for word in SPELLINGS)

METHODS: dict[str, Method] = _FIRST | {
    f"{name}+{then}": _refined(first, *_THEN[then])
    for name, first in _FIRST.items()
    for then in _THEN
    if name != "rtn:absmax"
}


METHODS_HELP = f"how codes are chosen: {', '.join(METHODS)}; before one of these {_WORDS} for a side-car"


def method(name: str) -> Method:
    """The method of that name, ``[side-car+]first[+then]``, or UsageError with the nearest one."""
    word, rest = split(name)
    if rest not in METHODS:
        hint = nearest(rest, list(METHODS)) or f"the methods are {', '.join(METHODS)}; before them {_WORDS}"
        raise UsageError(f"'{name}' is no known method.", hint=hint)
    first, outer = METHODS[rest], around(word)
    if outer is None:
        return first
    run = partial(outer.run, first.run)
    return Method(run, True, f"{outer.source}; {first.source}", outer.beside)


def is_method(name: str) -> bool:
    """Whether a method is called so."""
    return split(name)[1] in METHODS
