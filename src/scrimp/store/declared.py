"""What ``config.json`` of a store says of its tensors: ``quantization_config``, read."""

from __future__ import annotations

from pathlib import Path

from scrimp.errors import Refused, UsageError
from scrimp.formats import Format, parse

QUANT_METHOD = "scrimp"
#: Raised when an older scrimp could not read what a newer one writes.
VERSION = 1
#: What ``coding`` says in both files of a packed store.
RANS = "rans"
HINT = "the directory is damaged or hostile; compress the model again"
_SIDE = 2**40


def is_packed(path: Path, declared: object) -> bool:
    """Is the store under the entropy coder?"""
    coding = declared.get("coding") if isinstance(declared, dict) else None
    if coding not in (None, RANS):
        raise Refused(f"{path} is stored with the coding {str(coding)[:20]!r}; this scrimp reads {RANS}.",
                      hint="a newer scrimp may know it")  # fmt: skip
    return coding == RANS


def formats_of(path: Path, declared: object) -> tuple[dict[str, Format], dict[str, tuple[int, int]]]:
    """Format and shape of every matrix, from ``quantization_config``."""
    if not isinstance(declared, dict) or declared.get("quant_method") != QUANT_METHOD:
        raise Refused(f"{path}/config.json has no quantization_config of scrimp.", hint=HINT)
    if declared.get("version") != VERSION:
        raise Refused(f"{path} has store version {str(declared.get('version'))[:20]}; this scrimp reads {VERSION}.",
                      hint="use the scrimp that wrote it, or compress the model again")  # fmt: skip
    tensors = declared.get("tensors")
    if not isinstance(tensors, dict):
        raise Refused(f"{path}/config.json does not list its tensors.", hint=HINT)
    formats: dict[str, Format] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for name, entry in tensors.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("format"), str):
            raise Refused(f"{path}: {name[:80]} has no format.", hint=HINT)
        shape = entry.get("shape")
        if not isinstance(shape, list) or len(shape) != 2 or not all(type(n) is int and 0 < n < _SIDE for n in shape):
            raise Refused(f"{path}: the shape of {name[:80]} is no [N, K].", hint=HINT)
        try:
            formats[name] = parse(entry["format"])
        except UsageError as error:
            raise Refused(f"{path}: {name[:80]}: {error.message}", hint="a newer scrimp may know it") from None
        shapes[name] = (shape[0], shape[1])
    return formats, shapes
