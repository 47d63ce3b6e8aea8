"""Gemma 3, text: norms before and behind everything, local and global layers.

Source: Gemma Team 2025, arXiv:2503.19786.

A cap of attention scores is applied where the config names one; transformers reads that key and does not use it.
Norms multiply with 1 + their vector. Local layers see a window and have a rotary base of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scrimp.errors import Refused
from scrimp.models import llama
from scrimp.models.fields import integer, number
from scrimp.models.llama import EMBEDDING, HEAD, NORM, LlamaConfig, name
from scrimp.models.rotary import inverse_frequencies
from scrimp.program import Buffer, Program

LOCAL, GLOBAL = "sliding_attention", "full_attention"
_NORMS = {
    "post_attn_norm": "post_attention_layernorm.weight",
    "ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
}

GGUF_NAMES = llama.GGUF_NAMES | {
    "blk.{i}.attn_q_norm.weight": "model.layers.{i}.self_attn.q_norm.weight",
    "blk.{i}.attn_k_norm.weight": "model.layers.{i}.self_attn.k_norm.weight",
    "blk.{i}.post_attention_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "blk.{i}.post_ffw_norm.weight": "model.layers.{i}.post_feedforward_layernorm.weight",
}
GGUF_OFFSET = 1.0  # all vectors are those of norms
GGUF_PERMUTED: dict[str, str] = {}
#: Layers of the 27B, the only one whose scores are not scaled by the width of a head.
_LAYERS_27B = 62
_DEFAULTS = {
    "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gemma3Config:
    """What a llama has too, with the global frequencies, and what it has not."""

    base: LlamaConfig
    scale: float  #: of scores
    local: tuple[bool, ...]  #: of every layer: does it see a window only?
    window: int
    local_frequencies: tuple[float, ...]
    attention_cap: float  #: 0 for none
    logit_cap: float

    @property
    def context(self) -> int:
        return self.base.context


def parse(config: Mapping[str, Any]) -> Gemma3Config:
    config = {**_DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    if config["hidden_activation"] != "gelu_pytorch_tanh":
        raise Refused(f"hidden_activation '{str(config['hidden_activation'])[:40]}' is not supported here.",
                      hint="supported: gelu_pytorch_tanh")  # fmt: skip
    llama.refuse(config, "gemma3", "attention_bias", "use_bidirectional_attention")
    rotary = _rotary(config)
    base = llama.shape({**config, **rotary[GLOBAL]}, qk_norm=True)
    return Gemma3Config(
        base=base,
        scale=number(config, "query_pre_attn_scalar", low=1e-3, high=1e6, default=256.0) ** -0.5,
        local=_local(config, base.layers),
        window=integer(config, "sliding_window", default=4096),
        local_frequencies=inverse_frequencies(rotary[LOCAL], base.head_dim),
        attention_cap=_cap(config, "attn_logit_softcapping"),
        logit_cap=_cap(config, "final_logit_softcapping"),
    )


def _cap(config: Mapping[str, Any], key: str) -> float:
    return 0.0 if config.get(key) is None else number(config, key, low=1e-3, high=1e6)


def _local(config: Mapping[str, Any], layers: int) -> tuple[bool, ...]:
    """From ``layer_types``, else every layer but each ``sliding_window_pattern``-th."""
    kinds = config.get("layer_types")
    if kinds is None:
        pattern = integer(config, "sliding_window_pattern", high=1024, default=6)
        return tuple(bool((i + 1) % pattern) for i in range(layers))
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (LOCAL, GLOBAL) for kind in kinds):
        raise Refused(f"config: layer_types must name {LOCAL} or {GLOBAL} for each of {layers:,} layers.",
                      hint="the file is damaged, or of another architecture")  # fmt: skip
    return tuple(kind == LOCAL for kind in kinds)


def _rotary(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What models/rotary.py reads, for each kind of layer: of transformers 5's config, or of the older ones."""
    given = config.get("rope_parameters")
    if isinstance(given, dict) and (LOCAL in given or GLOBAL in given):
        bases = {LOCAL: 10_000.0, GLOBAL: 1_000_000.0}
        return {kind: {"rope_theta": base, "rope_parameters": given.get(kind)} for kind, base in bases.items()}
    if given is not None:
        raise Refused("config: rope_parameters of a gemma3 are given for each kind of layer.",
                      hint=f"{LOCAL} and {GLOBAL}")  # fmt: skip
    base = config.get("rope_theta", 1_000_000.0)
    return {
        LOCAL: {"rope_theta": config.get("rope_local_base_freq", 10_000.0)},
        GLOBAL: {"rope_theta": base, "rope_scaling": config.get("rope_scaling"), "rope_parameters": None},
    }


def _norm(layer: int, short: str) -> str:
    return f"model.layers.{layer}.{_NORMS[short]}" if short in _NORMS else name(layer, short)


def program(c: Gemma3Config) -> Program:
    """The network as operations; ``T`` tokens in, logits ``(T, V)`` out."""
    b = c.base
    matrices, vectors = llama.tensors(b)
    vectors |= {_norm(i, short): b.width for i in range(b.layers) for short in _NORMS}
    p = Program(matrices, vectors)

    def norm(x: Buffer, vector: str, heads: int = 1) -> Buffer:
        return p.rms_norm(x, vector, b.norm_eps, heads=heads, offset=1.0)

    x = p.embed(EMBEDDING, scale=b.width**0.5)  # transformers rounds it to the weights' type
    for i, local in enumerate(c.local):
        frequencies = c.local_frequencies if local else b.inverse_frequencies
        h = norm(x, _norm(i, "attn_norm"))
        q, k, v = p.linear(h, name(i, "q"), name(i, "k"), name(i, "v"))
        q = p.rope(norm(q, name(i, "q_norm"), b.heads), b.heads, frequencies)
        k = p.rope(norm(k, name(i, "k_norm"), b.kv_heads), b.kv_heads, frequencies)
        a = p.attention(
            q, k, v, heads=b.heads, kv_heads=b.kv_heads, scale=c.scale, window=c.window if local else 0,
            softcap=c.attention_cap,
        )  # fmt: skip
        (o,) = p.linear(a, name(i, "o"))
        x = p.add(x, norm(o, _norm(i, "post_attn_norm")))
        h = norm(x, _norm(i, "ffn_norm"))
        h = p.activation("gelu_tanh", *p.linear(h, name(i, "gate"), name(i, "up")))
        (down,) = p.linear(h, name(i, "down"))
        x = p.add(x, norm(down, _norm(i, "post_ffn_norm")))
    (logits,) = p.linear(norm(x, NORM), EMBEDDING if b.tied else HEAD)
    p.output = logits.index
    if c.logit_cap:
        p.softcap(logits, c.logit_cap)
    return p


def config_from_gguf(metadata: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """As llama.cpp writes it, which leaves out what all Gemma 3 share."""
    config = llama.config_from_gguf(metadata, names, arch="gemma3")
    heads, head_dim = config["num_attention_heads"], config.get("head_dim", 256)
    wide = config["num_hidden_layers"] == _LAYERS_27B
    scalar = head_dim
    if wide and isinstance(config["hidden_size"], int) and isinstance(heads, int) and heads > 0:
        scalar = config["hidden_size"] // heads
    return config | {
        "model_type": "gemma3_text",
        "rms_norm_eps": metadata.get("gemma3.attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": metadata.get("gemma3.rope.freq_base", 1_000_000.0),
        "rope_local_base_freq": metadata.get("gemma3.rope.freq_base_swa", 10_000.0),
        "sliding_window": metadata.get("gemma3.attention.sliding_window"),
        "query_pre_attn_scalar": scalar,
        "final_logit_softcapping": metadata.get("gemma3.final_logit_softcapping"),
        "attn_logit_softcapping": metadata.get("gemma3.attn_logit_softcapping"),
        "hidden_activation": "gelu_pytorch_tanh",
    }
