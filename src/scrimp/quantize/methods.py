"""The methods: how codes and scales are chosen, by the names used in flags, plans and reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError, nearest
from scrimp.formats import Format
from scrimp.quantize import (
    adaround,
    awq,
    clip,
    clipping,
    descent,
    ecsq,
    gptq,
    hqq,
    kmeans,
    refit,
    rtn,
    signround,
    smoothquant,
    swap,
    yaqa,
)
from scrimp.quantize.around import SPELLINGS, around
from scrimp.quantize.fold import Group, Scaling
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32, QTensor

#: ``(tensor, the weight (N, K) it was made of, statistics) → a better tensor``
Refine = Callable[[QTensor, F32, Statistics | None], QTensor]
#: ``(group, weights (N, K) of its readers, statistics of what they read, their formats, what rounds them) → s``
Rewrite = Callable[[Group, Mapping[str, F32], Statistics, Mapping[str, Format], Mapping[str, Quantize]], Scaling]


@dataclass(frozen=True, slots=True)
class Method:
    """How a matrix is quantized. ``method(weight, format, statistics)`` gives the tensor, ``run`` its notes too."""

    run: Quantize
    calibrated: bool  #: whether it needs statistics of what the layer reads
    source: str  #: where it was published
    coded_bits: float | None = None  #: what a weight's code takes in a packed store, where the method settles that
    rewrite: Rewrite | None = None  #: how the inputs of a fold's Group are scaled before anything is rounded
    beside: Callable[[tuple[int, int]], dict[str, SideCar]] | None = None  #: the side-cars of a matrix (N, K), if any
    fisher: bool = False  #: whether it wants gradients at the outputs too; such a method stands alone

    def __call__(self, weight: F32, format: Format, statistics: Statistics | None = None) -> QTensor:
        return self.run(weight, format, statistics).tensor


def _plain(scale: rtn.Scale) -> Quantize:
    return lambda weight, format, _: Quantized(rtn.quantize(weight, format, scale=scale))


_FIRST = {
    "rtn": Method(_plain("mse"), False, "nearest level, scales of least squared error"),
    "rtn:absmax": Method(_plain("absmax"), False, "nearest level, scales that clip nothing"),
    "rtn:clip": Method(clip.quantize, True, "nearest level, scales of least output error; Lin et al. 2023"),
    "rtn:octav": Method(clipping.octav, False, "Sakr et al. 2022, arXiv:2206.06501"),
    "rtn:percentile": Method(clipping.percentile, False, "nearest level, scales that clip one weight in a thousand"),
    "hqq": Method(hqq.quantize, False, "Badri & Shaji 2023, Half-Quadratic Quantization"),
    "gptq": Method(gptq.quantize, True, "Frantar et al. 2022, arXiv:2210.17323"),
    "kmeans": Method(kmeans.quantize, True, "Han et al. 2016, arXiv:1510.00149, under H"),
    "adaround": Method(adaround.quantize, True, "Nagel et al. 2020, arXiv:2004.10568"),
    "signround": Method(signround.quantize, True, "Cheng et al. 2023, arXiv:2309.05516"),
    "yaqa": Method(yaqa.quantize, True, "Tseng et al. 2025, arXiv:2505.22988", fisher=True),
    "gptq:unordered": Method(partial(gptq.quantize, ordered=False), True, "the same, columns as they come"),
}
_THEN: dict[str, tuple[Refine, str]] = {
    "refit": (refit.refine, "scales by least squares on the layer's output, ours"),
    "descent": (descent.refine, "Behdin et al. 2023, arXiv:2309.01885, with refitted scales"),
    "swap": (swap.refine, "descent, then single codes with the scale that follows, ours"),
}


def _refined(first: Method, refine: Refine, source: str) -> Method:
    def run(weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
        found = first.run(weight, format, statistics)
        return replace(found, tensor=refine(found.tensor, weight, statistics))

    return Method(run, True, f"{first.source}; {source}")


METHODS: dict[str, Method] = _FIRST | {
    f"{name}+{then}": _refined(first, *_THEN[then])
    for name, first in _FIRST.items()
    for then in _THEN
    if not name.startswith("rtn:") and name != "gptq:unordered" and not first.fisher
}


#: What changes a network before its matrices are rounded; each by itself goes with the first method named here.
REWRITES: dict[str, tuple[Rewrite, str, str]] = {
    "waterfill": (ecsq.waterfill, "ecsq:4", "reverse water-filling on the pivots of LDLQ, ours"),
    "awq": (awq.search, "rtn:clip", "Lin et al. 2023, arXiv:2306.00978"),
    "smoothquant": (smoothquant.search, "rtn", "Xiao et al. 2022, arXiv:2211.10438"),
}
_ALONE = [name for name, found in _FIRST.items() if found.fisher]
METHODS_HELP = (
    f"how codes are chosen: {', '.join(name for name in _FIRST if name not in _ALONE)}, ecsq:BITS; then perhaps "
    f"{', '.join('+' + then for then in _THEN)}; {', '.join(REWRITES)} scale before, {', '.join(SPELLINGS)} put a "
    f"side-car beside, alone or as awq+gptq; by itself, and with torch: {', '.join(_ALONE)}"
)


def method(name: str) -> Method:
    """The method ``[REWRITE+][SIDECAR+]FIRST[+THEN]``, or UsageError with the nearest one."""
    found = _find(name)
    if found is None:
        alone = next((word for word in name.split("+") if word in _ALONE), None)
        if alone is not None:
            raise UsageError(f"'{name}' is no known method.", hint=f"{alone} stands alone: --method {alone}")
        known = [*METHODS, "ecsq:BITS", *REWRITES, *SPELLINGS]
        hint = nearest(name, [*known, *(f"{before}+{rest}" for before in (*REWRITES, *SPELLINGS) for rest in METHODS)])
        raise UsageError(f"'{name}' is no known method.", hint=hint or f"the methods are {', '.join(known)}")
    return found


def is_method(name: str) -> bool:
    return _find(name) is not None


def _find(name: str) -> Method | None:
    if name in METHODS:
        return METHODS[name]
    head, plus, rest = name.partition("+")
    if head in REWRITES:
        rewrite, default, source = REWRITES[head]
        found = _find(rest if plus else default)
        if found is None or found.rewrite is not None or found.fisher:
            return None
        return replace(found, calibrated=True, rewrite=rewrite, source=f"{source}; {found.source}")
    outer = around(head)
    if outer is None:
        return _at_a_rate(name)
    first = METHODS.get(rest if plus else outer.first)
    if first is None or first.fisher:
        return None
    return Method(partial(outer.run, first.run), True, f"{outer.source}; {first.source}", beside=outer.beside)


def _at_a_rate(name: str) -> Method | None:
    """``ecsq:BITS[+THEN]``."""
    first, plus, then = name.partition("+")
    word, _, text = first.partition(":")
    if word != "ecsq" or not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,20})?", text):
        return None
    bits = float(text)
    low, high = ecsq.RATES
    if not low <= bits <= high or (plus and then not in _THEN):
        return None
    run = partial(ecsq.quantize, bits=bits)
    found = Method(run, True, "Chou, Lookabaugh & Gray 1989, with the feedback of GPTQ", coded_bits=bits)
    return replace(_refined(found, *_THEN[then]), coded_bits=bits) if plus else found
