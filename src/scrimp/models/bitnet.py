"""BitNet b1.58 2B4T: ternary products behind norms of their own, squared ReLU.

Source: Ma et al. 2025, arXiv:2504.12285.

Every product but the head was trained with inputs of 8 bits, one scale a token, so that is how it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scrimp.errors import Refused
from scrimp.models import llama
from scrimp.models.llama import EMBEDDING, HEAD, NORM, LlamaConfig, name
from scrimp.program import Program

GGUF_NAMES = llama.GGUF_NAMES | {
    "blk.{i}.attn_sub_norm.weight": "model.layers.{i}.self_attn.attn_sub_norm.weight",
    "blk.{i}.ffn_sub_norm.weight": "model.layers.{i}.mlp.ffn_sub_norm.weight",
}
GGUF_OFFSET = llama.GGUF_OFFSET
GGUF_PERMUTED: dict[str, str] = {}  # bitnet.cpp rotates halves
_DEFAULTS = {"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "relu2"}


def parse(config: Mapping[str, Any]) -> LlamaConfig:
    config = {**_DEFAULTS, **config}
    if config["hidden_act"] != "relu2":
        raise Refused(f"hidden_act '{str(config['hidden_act'])[:40]}' is not supported here.",
                      hint="supported: relu2, which BitNet b1.58 2B4T has")  # fmt: skip
    llama.refuse(config, "bitnet", "attention_bias", "mlp_bias")
    c = llama.shape(config)
    if c.heads * c.head_dim != c.width:
        raise Refused(f"config: {c.heads} heads of {c.head_dim} are not as wide as the network, {c.width:,}.",
                      hint="the norm behind attention has the width of the network; the file is damaged")  # fmt: skip
    return c


def sub_norms(layer: int) -> tuple[str, str]:
    """The vectors of the norms before o and before down."""
    return f"model.layers.{layer}.self_attn.attn_sub_norm.weight", f"model.layers.{layer}.mlp.ffn_sub_norm.weight"


def program(c: LlamaConfig) -> Program:
    """The network as operations; ``T`` tokens in, logits ``(T, V)`` out."""
    matrices, vectors = llama.tensors(c)
    for i in range(c.layers):
        vectors |= zip(sub_norms(i), (c.width, c.ffn), strict=True)
    p = Program(matrices, vectors)
    x = p.embed(EMBEDDING)
    for i in range(c.layers):
        attn_sub_norm, ffn_sub_norm = sub_norms(i)
        h = p.rms_norm(x, name(i, "attn_norm"), c.norm_eps)
        q, k, v = p.linear(h, name(i, "q"), name(i, "k"), name(i, "v"), token_scale=True)
        q, k = p.rope(q, c.heads, c.inverse_frequencies), p.rope(k, c.kv_heads, c.inverse_frequencies)
        a = p.attention(q, k, v, heads=c.heads, kv_heads=c.kv_heads, scale=c.head_dim**-0.5)
        a = p.rms_norm(a, attn_sub_norm, c.norm_eps)
        x = p.add(x, *p.linear(a, name(i, "o"), token_scale=True))
        h = p.rms_norm(x, name(i, "ffn_norm"), c.norm_eps)
        h = p.activation("relu2", *p.linear(h, name(i, "gate"), name(i, "up"), token_scale=True))
        x = p.add(x, *p.linear(p.rms_norm(h, ffn_sub_norm, c.norm_eps), name(i, "down"), token_scale=True))
    (logits,) = p.linear(p.rms_norm(x, NORM, c.norm_eps), EMBEDDING if c.tied else HEAD)
    p.output = logits.index
    return p


def config_from_gguf(metadata: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """As bitnet.cpp writes it, under "bitnet-b1.58" or "bitnet-25"."""
    config = llama.config_from_gguf(metadata, names, arch=str(metadata["general.architecture"]))
    return config | {"model_type": "bitnet", "hidden_act": "relu2"}
