"""The loop: a Plan applied to a source, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.progress import SILENT, Progress
from scrimp.quantize.corrected import corrected
from scrimp.quantize.decoded import decode, output_error, relative_error
from scrimp.quantize.methods import method
from scrimp.quantize.plan import KEEP, Choice, Plan
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor, from_floats

_F32 = parse("f32")


@dataclass(frozen=True, slots=True, eq=False)
class Applied:
    """A tensor as it will be stored; ``error`` is ``‖w - ŵ‖ / ‖w‖`` against what was rounded, 0 where nothing changed.

    ``output_error`` is ``‖X (w - ŵ)ᵀ‖ / ‖X wᵀ‖`` over the inputs X of the calibration, where there are any.
    """

    name: str
    tensor: QTensor | NDArray[np.float32]
    error: float
    output_error: float | None = None
    notes: tuple[str, ...] = ()  #: where the method went another way than it describes
    beside: Mapping[str, QTensor | NDArray[np.float32]] = field(default_factory=dict)  #: side-cars, by suffix


def calibrates(choice: Choice) -> bool:
    """Whether the method of a choice wants Statistics."""
    return choice.method != KEEP and method(choice.method).calibrated


def wants_gradients(choice: Choice) -> bool:
    """Whether its method wants gradients at the outputs too."""
    return choice.method != KEEP and method(choice.method).fisher


def apply(plan: Plan, source: Source, *, done: Collection[str] = (), progress: Progress = SILENT) -> Iterator[Applied]:
    """Every tensor of the plan but those ``done``, in order. ``progress`` counts weights."""
    progress.start("compress", plan.parameters)
    for name in plan.shapes:
        if name not in done:
            applied = one(name, source.read(name), plan.choices.get(name))
            if name in plan.choices and plan.choices[name].method == KEEP:
                kept = {suffix: source.read(f"{name}.{suffix}") for suffix in plan.beside.get(name, {})}
                applied = replace(applied, beside=kept)
            yield applied
        progress.advance(float(np.prod(plan.shapes[name])), name)
    progress.finish()


def one(
    name: str,
    stored: QTensor | NDArray[np.float32],
    choice: Choice | None,
    statistics: Statistics | None = None,
    rewrite: Callable[[str, F32], F32] | None = None,
) -> Applied:
    """One tensor the way the plan wants it. Refused, with its name, when it holds NaN.

    A matrix that a fold changed goes through ``rewrite``, and one whose method calibrates on inputs that drifted is
    corrected for that; its errors are then those against what was rounded, whose inputs the ``statistics`` describe.
    """
    if not isinstance(stored, QTensor):
        return Applied(name, np.ascontiguousarray(stored, np.float32), 0.0)
    assert choice is not None
    if choice.method == KEEP:
        return Applied(name, stored, 0.0)
    weight = decode(stored) if rewrite is None else rewrite(name, decode(stored))
    if statistics is not None and calibrates(choice):
        weight = corrected(weight, statistics)
    try:
        made = method(choice.method).run(weight, choice.format, statistics)
    except Refused as error:
        raise Refused(f"{name}: {error.message}", hint=error.hint) from None
    stands_for = made.tensor if made.effective is None else from_floats(_F32, made.effective)
    apart = None if statistics is None else output_error(weight, stands_for, statistics)
    return Applied(name, made.tensor, relative_error(weight, stands_for), apart, made.notes, made.beside)
