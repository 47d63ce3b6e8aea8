"""Qwen2 and Qwen2.5: the llama block with biases on q, k and v. Source: Yang et al. 2024, arXiv:2407.10671."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scrimp.errors import Refused
from scrimp.models import llama
from scrimp.models.fields import flag
from scrimp.models.llama import LlamaConfig

GGUF_NAMES = llama.GGUF_NAMES
GGUF_OFFSET = llama.GGUF_OFFSET
GGUF_PERMUTED: dict[str, str] = {}  # GGUF keeps Qwen's rows in the Hugging Face order
program = llama.program


def parse(config: Mapping[str, Any]) -> LlamaConfig:
    if flag(config, "use_sliding_window", default=False):
        raise Refused("This qwen2 uses a sliding window, which is not supported.", hint="most Qwen2 checkpoints do not")
    return llama.shape(config, qkv_bias=True)


def config_from_gguf(metadata: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return llama.config_from_gguf(metadata, names, arch="qwen2")
