"""Qwen3, dense: the llama block, heads of q and k pass an RMSNorm. Source: Yang et al. 2025, arXiv:2505.09388."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scrimp.errors import Refused
from scrimp.models import llama
from scrimp.models.llama import LlamaConfig

GGUF_NAMES = llama.GGUF_NAMES | {
    "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
}
GGUF_OFFSET = llama.GGUF_OFFSET
GGUF_PERMUTED: dict[str, str] = {}  # GGUF keeps Qwen's rows in the Hugging Face order
#: Width of a head where the config names none, whatever the width of the network.
HEAD_DIM = 128
program = llama.program


def parse(config: Mapping[str, Any]) -> LlamaConfig:
    if config.get("hidden_act", "silu") != "silu":
        raise Refused(f"hidden_act '{str(config['hidden_act'])[:40]}' is not supported here.", hint="supported: silu")
    llama.refuse(config, "qwen3", "attention_bias", "use_sliding_window")
    head_dim = HEAD_DIM if config.get("head_dim") is None else config["head_dim"]
    return llama.shape({**config, "head_dim": head_dim}, qk_norm=True)


def config_from_gguf(metadata: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return llama.config_from_gguf(metadata, names, arch="qwen3")
