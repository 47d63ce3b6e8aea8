"""The checks of every source: is it the network that its config describes, in numbers one can calculate with?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.tensors import PLANE_PARTS, QTensor, part_types

#: The exponent bits of a float type: all of them set is an infinity or a NaN.
_EXPONENTS: dict[str, int] = {"f32": 0x7F80_0000, "tf32": 0x7F80_0000, "f16": 0x7C00, "bf16": 0x7F80}
#: The bits of an 8-bit scale that are all set in its NaN.
_NAN_SCALES = {"e8m0": 0xFF, "e4m3": 0x7F}
#: Five trits make 3^5 codes of a byte.
_TRIT_CODES = 243
_CHUNK = 2**20


def check_tensors(path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refused unless ``shapes`` are exactly the matrices ``(N, K)`` and vectors ``(n,)`` of the config's network.

    A tensor too many is refused like one too few: a bias that is ignored is a different network.
    """
    wanted = models.tensor_shapes(config)
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
    found = not_finite(tensor) if isinstance(tensor, QTensor) else {"values": _all_set(tensor, _EXPONENTS["f32"])}
    for what, bad in found.items():
        if bad:
            raise Refused(f"{path}: {bad:,} {what} of {name} are infinite or NaN.",
                          hint="the file is damaged, or its training diverged")  # fmt: skip


def not_finite(tensor: QTensor) -> dict[str, int]:
    """How many numbers of each part are infinite or NaN: weights, scales, mins, codebooks."""
    element, parts, found = tensor.format.element, tensor.parts(), {}
    if element.kind == "float":
        found["weights"] = _all_set(tensor.planes[0], _EXPONENTS[element.name])
    elif element.kind == "table" and not np.isfinite(element.tabulated()).all():
        found["weights"] = int(np.count_nonzero(~np.isfinite(element.tabulated())[tensor.codes()]))
    for part, kind in part_types(tensor.format).items():
        if part not in PLANE_PARTS and kind in _EXPONENTS:
            found[part] = _all_set(parts[part], _EXPONENTS[kind])
        elif part == "scales" and tensor.format.scale in _NAN_SCALES:
            found[part] = _all_set(parts[part], _NAN_SCALES[tensor.format.scale])
    return found


def reads_codes(format: Format) -> bool:
    """Do these checks look at every weight of a matrix, and not only at its scales?"""
    element = format.element
    if element.kind == "float" or element.planes == (0,):
        return True
    endless = element.kind == "table" and not np.isfinite(element.tabulated()).all()
    return endless or element.levels < 2 ** sum(element.planes)


def check_codes(path: Path, name: str, tensor: QTensor) -> None:
    """Refused when a code means nothing in the tensor's format."""
    element = tensor.format.element
    if element.planes == (0,):
        if int(tensor.planes[0].max(initial=0)) >= _TRIT_CODES:
            raise Refused(f"{path}: {name[:80]}.codes holds bytes above {_TRIT_CODES - 1}, which are no trits.",
                          hint="the file is damaged or hostile; write it again")  # fmt: skip
        return
    unused = element.kind != "float" and element.levels < 2 ** sum(element.planes)
    if unused and (top := int(tensor.codes().max(initial=0))) >= element.levels:
        raise Refused(f"{path}: {name[:80]} holds code {top}; {element.name} ends at {element.levels - 1}.",
                      hint="the file is damaged or hostile; write it again")  # fmt: skip


def _all_set(values: NDArray[Any], mask: int) -> int:
    """How many numbers have all bits of ``mask`` set."""
    flat = values.reshape(-1)
    bits: NDArray[Any] = flat.view(np.uint32 if mask > 0xFFFF else np.uint16 if mask > 0xFF else np.uint8)
    chunks = (bits[at : at + _CHUNK] for at in range(0, bits.size, _CHUNK))
    return sum(int(np.count_nonzero((chunk & mask) == mask)) for chunk in chunks)


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:3])
    return shown if len(names) <= 3 else f"{len(names):,} tensors such as {shown}"


def _sides(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{side:,}" for side in shape)
