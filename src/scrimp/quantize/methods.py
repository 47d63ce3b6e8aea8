"""The methods: how codes and scales are chosen, by the names used in flags, plans and reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from scrimp.errors import UsageError, nearest
from scrimp.formats import Format
from scrimp.quantize import rtn
from scrimp.tensors import F32, QTensor

#: ``(weight (N, K), format) → QTensor``
Method = Callable[[F32, Format], QTensor]

METHODS: dict[str, Method] = {
    "rtn": partial(rtn.quantize, scale="mse"),
    "rtn:absmax": partial(rtn.quantize, scale="absmax"),
}


def method(name: str) -> Method:
    """The method of that name, or UsageError with the nearest one."""
    if name not in METHODS:
        hint = nearest(name, list(METHODS)) or f"the methods are {', '.join(METHODS)}"
        raise UsageError(f"'{name}' is no known method.", hint=hint)
    return METHODS[name]
