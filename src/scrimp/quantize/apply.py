"""The loop: a Plan applied to a source, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.progress import SILENT, Progress
from scrimp.quantize.decoded import decode, relative_error
from scrimp.quantize.methods import method
from scrimp.quantize.plan import KEEP, Choice, Plan
from scrimp.sources.source import Source
from scrimp.tensors import QTensor


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """A tensor as it will be stored; ``error`` is ``‖w - ŵ‖ / ‖w‖`` against the source, 0 where nothing changed."""

    name: str
    tensor: QTensor | NDArray[np.float32]
    error: float


def apply(plan: Plan, source: Source, *, done: Collection[str] = (), progress: Progress = SILENT) -> Iterator[Applied]:
    """Every tensor of the plan but those ``done``, in order. ``progress`` counts weights."""
    progress.start("compress", plan.parameters)
    for name in plan.shapes:
        if name not in done:
            yield one(name, source.read(name), plan.choices.get(name))
        progress.advance(float(np.prod(plan.shapes[name])), name)
    progress.finish()


def one(name: str, stored: QTensor | NDArray[np.float32], choice: Choice | None) -> Applied:
    """One tensor the way the plan wants it. Refused, with its name, when it holds NaN."""
    if not isinstance(stored, QTensor):
        return Applied(name, np.ascontiguousarray(stored, np.float32), 0.0)
    assert choice is not None
    if choice.method == KEEP:
        return Applied(name, stored, 0.0)
    weight = decode(stored)
    try:
        tensor = method(choice.method)(weight, choice.format)
    except Refused as error:
        raise Refused(f"{name}: {error.message}", hint=error.hint) from None
    return Applied(name, tensor, relative_error(weight, tensor))
