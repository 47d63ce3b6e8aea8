"""One architecture per file: config → Program, and the names its tensors have elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from scrimp.errors import Refused, nearest
from scrimp.models import cnn, llama, qwen2
from scrimp.program import Program

#: ``model_type`` of a config.json, and ``general.architecture`` of a GGUF file → the module.
ARCHITECTURES: dict[str, ModuleType] = {"llama": llama, "qwen2": qwen2}


def architecture(name: object) -> ModuleType:
    """The module of an architecture; Refused with the known names when there is none."""
    if name == cnn.MODEL_TYPE:
        raise Refused("This is a network of pictures, which reads and writes no text.",
                      hint="scrimp eval MODEL --pictures SPEC measures it, scrimp inspect MODEL shows it")  # fmt: skip
    if not isinstance(name, str) or name not in ARCHITECTURES:
        hint = nearest(str(name), list(ARCHITECTURES)) or f"known: {', '.join(sorted(ARCHITECTURES))}"
        raise Refused(f"The architecture '{name}' is not supported.", hint=hint)
    return ARCHITECTURES[name]


def build(config: Mapping[str, Any]) -> tuple[Any, Program]:
    """Parse a config and build its Program: ``(parsed config, program)``."""
    module = architecture(config.get("model_type"))
    parsed = module.parse(config)
    return parsed, module.program(parsed)


def sees(config: Mapping[str, Any]) -> bool:
    """Is it a network of pictures, that is a Net and no Program?"""
    return config.get("model_type") == cnn.MODEL_TYPE


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of exactly the tensors that the config's network has."""
    if sees(config):
        return cnn.parse(config).tensors()
    _, program = build(config)
    return {**program.matrices, **{name: (size,) for name, size in program.vectors.items()}}
