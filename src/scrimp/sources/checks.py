"""The checks of every source: is it the network that its config describes, in numbers one can calculate with?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.errors import Refused
from scrimp.tensors import QTensor

#: The exponent bits of a float type: all of them set is an infinity or a NaN.
_EXPONENTS: dict[str, int] = {"f32": 0x7F80_0000, "f16": 0x7C00, "bf16": 0x7F80}
_CHUNK = 2**20


def check_tensors(path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refused unless ``shapes`` are exactly the matrices ``(N, K)`` and vectors ``(n,)`` of the config's Program.

    A tensor too many is refused like one too few: a bias that is ignored is a different network.
    """
    _, program = models.build(config)
    wanted: dict[str, tuple[int, ...]] = {
        **program.matrices,
        **{name: (size,) for name, size in program.vectors.items()},
    }
    architecture = config.get("model_type")
    if missing := [name for name in wanted if name not in shapes]:
        raise Refused(f"{path} lacks {_some(missing)}, which its {architecture} needs.", hint="the file is incomplete")
    if extra := [name for name in shapes if name not in wanted]:
        raise Refused(f"{path} holds {_some(extra)}, which scrimp's {architecture} does not use.",
                      hint="leaving them out would change the network; this variant is not supported")  # fmt: skip
    for name, shape in wanted.items():
        if shapes[name] != shape:
            raise Refused(f"{path}: {name} has shape {_sides(shapes[name])}; its config asks for {_sides(shape)}.",
                          hint="the file is damaged, or its config belongs to another model")  # fmt: skip


def check_finite(path: Path, name: str, tensor: QTensor | NDArray[np.float32]) -> None:
    """Refused when a weight, a scale or a min is infinite or NaN: every text such a network writes is noise."""
    if not isinstance(tensor, QTensor):
        floats: dict[str, NDArray[Any]] = {"values": tensor}
        kind = "f32"
    elif tensor.format.scale is None:
        floats, kind = {"weights": tensor.planes[0]}, tensor.format.element.name
    else:
        parts = tensor.parts()
        floats, kind = {what: parts[what] for what in ("scales", "mins") if what in parts}, tensor.format.scale
    for what, values in floats.items():
        if bad := _not_finite(values, _EXPONENTS[kind]):
            raise Refused(f"{path}: {bad:,} {what} of {name} are infinite or NaN.",
                          hint="the file is damaged, or its training diverged")  # fmt: skip


def _not_finite(values: NDArray[Any], exponent: int) -> int:
    bits: NDArray[Any] = values.reshape(-1).view(np.uint32 if exponent > 0xFFFF else np.uint16)
    chunks = (bits[at : at + _CHUNK] for at in range(0, bits.size, _CHUNK))
    return sum(int(np.count_nonzero((chunk & exponent) == exponent)) for chunk in chunks)


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return shown if len(names) <= 3 else f"{len(names):,} tensors such as {shown}"


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{side:,}" for side in shape)
