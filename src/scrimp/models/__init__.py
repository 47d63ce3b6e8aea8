"""One architecture per file: config → Program, and the names its tensors have elsewhere."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from scrimp.errors import Refused, nearest
from scrimp.program import Program

#: ``model_type`` of a config.json → the module here, which is imported when a network asks for it.
ARCHITECTURES: dict[str, str] = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3", "bitnet": "bitnet", "bert": "bert",
}  # fmt: skip
#: ``general.architecture`` of a GGUF file → the module. ("bitnet" there is an older network than 2B4T.)
GGUF_ARCHITECTURES: dict[str, str] = {
    "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3", "bitnet-b1.58": "bitnet",
    "bitnet-25": "bitnet",
}  # fmt: skip
#: ``model_type`` of networks that look at pictures (cnn.py), which are a Net and no Program.
PICTURES = "scrimp_cnn"


def architecture(name: object, known: Mapping[str, str] = ARCHITECTURES) -> ModuleType:
    """The module of an architecture; Refused with the known names when there is none."""
    if name == PICTURES:
        raise Refused("This is a network of pictures, which reads and writes no text.",
                      hint="scrimp eval MODEL --pictures SPEC measures it, scrimp inspect MODEL shows it")  # fmt: skip
    if not isinstance(name, str) or name not in known:
        hint = nearest(str(name), list(known)) or f"known: {', '.join(sorted(known))}"
        raise Refused(f"The architecture '{name}' is not supported.", hint=hint)
    return importlib.import_module(f"scrimp.models.{known[name]}")


def build(config: Mapping[str, Any]) -> tuple[Any, Program]:
    """Parse a config and build its Program: ``(parsed config, program)``."""
    module = architecture(config.get("model_type"))
    parsed = module.parse(config)
    return parsed, module.program(parsed)


def sees(config: Mapping[str, Any]) -> bool:
    """Is it a network of pictures?"""
    return config.get("model_type") == PICTURES


def encodes(config: Mapping[str, Any]) -> bool:
    """Do texts become hidden states, and no logits?"""
    return not sees(config) and build(config)[1].head is None


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → shape of exactly the tensors that the config's network has."""
    if sees(config):
        from scrimp.models import cnn

        return cnn.parse(config).tensors()
    _, program = build(config)
    return {**program.matrices, **{name: (size,) for name, size in program.vectors.items()}}
