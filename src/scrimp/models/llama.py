"""Llama 2 and 3, TinyLlama, SmolLM2, Mistral-shaped networks: RMSNorm, rotary, grouped queries, SwiGLU.

Source: Touvron et al. 2023, arXiv:2302.13971; Llama 3.1's rotary scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scrimp.errors import Refused
from scrimp.models.fields import flag, integer, number
from scrimp.models.rotary import inverse_frequencies
from scrimp.program import Program

EMBEDDING = "model.embed_tokens.weight"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"

#: Widest row of a matrix: 8-bit codes times 8-bit activations then still sum up in 32 bits.
MAX_INPUTS = 2**16

#: short name → the Hugging Face name inside ``model.layers.<i>.``
LAYER = {
    "attn_norm": "input_layernorm.weight",
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "gate": "mlp.gate_proj.weight",
    "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight",
}

#: GGUF names → Hugging Face names; ``{i}`` is the layer.
GGUF_NAMES = {
    "token_embd.weight": EMBEDDING,
    "output_norm.weight": NORM,
    "output.weight": HEAD,
    "blk.{i}.attn_norm.weight": "model.layers.{i}.input_layernorm.weight",
    "blk.{i}.attn_q.weight": "model.layers.{i}.self_attn.q_proj.weight",
    "blk.{i}.attn_k.weight": "model.layers.{i}.self_attn.k_proj.weight",
    "blk.{i}.attn_v.weight": "model.layers.{i}.self_attn.v_proj.weight",
    "blk.{i}.attn_q.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "blk.{i}.attn_k.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "blk.{i}.attn_v.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "blk.{i}.attn_output.weight": "model.layers.{i}.self_attn.o_proj.weight",
    "blk.{i}.ffn_norm.weight": "model.layers.{i}.post_attention_layernorm.weight",
    "blk.{i}.ffn_gate.weight": "model.layers.{i}.mlp.gate_proj.weight",
    "blk.{i}.ffn_up.weight": "model.layers.{i}.mlp.up_proj.weight",
    "blk.{i}.ffn_down.weight": "model.layers.{i}.mlp.down_proj.weight",
}

#: What GGUF adds to the vectors it stores.
GGUF_OFFSET = 0.0

#: Tensors whose rows GGUF stores with neighbouring rotary pairs, and the config key of their head count.
GGUF_PERMUTED = {
    "self_attn.q_proj.weight": "num_attention_heads",
    "self_attn.k_proj.weight": "num_key_value_heads",
}


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The shape of the network; ``parse`` reads and checks it."""

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    norm_eps: float
    tied: bool
    qkv_bias: bool
    qk_norm: bool  #: q and k pass an RMSNorm, head by head, before they are rotated
    inverse_frequencies: tuple[float, ...]


def parse(config: Mapping[str, Any]) -> LlamaConfig:
    """Read a ``config.json``; raises Refused for what is missing, out of range or not supported."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise Refused(f"hidden_act '{config['hidden_act']}' is not supported here.", hint="supported: silu")
    if flag(config, "mlp_bias", default=False) or flag(config, "attention_bias", default=False):
        raise Refused(
            "This llama has biases in its linear layers; those are not supported.", hint="qwen2 has q, k, v biases"
        )
    return shape(config)


def shape(config: Mapping[str, Any], *, qkv_bias: bool = False, qk_norm: bool = False) -> LlamaConfig:
    """The part that every network of this family shares."""
    heads = integer(config, "num_attention_heads", high=4096)
    width = integer(config, "hidden_size", high=MAX_INPUTS)
    kv_heads = integer(config, "num_key_value_heads", high=4096, default=heads)
    if config.get("head_dim") is None and width % heads:
        raise Refused(f"config: hidden_size {width:,} does not divide into {heads} heads.", hint="the file is damaged")
    head_dim = integer(config, "head_dim", low=4, high=512, default=width // heads)
    if heads * head_dim > MAX_INPUTS:
        raise Refused(
            f"config: {heads:,} heads of {head_dim} are too wide.", hint=f"the limit is {MAX_INPUTS:,} in all"
        )
    if head_dim % 4 or heads % kv_heads:
        raise Refused(f"config: {heads} heads of {head_dim} over {kv_heads} key heads do not fit together.",
                      hint="head_dim must be a multiple of 4, and key heads must divide the heads")  # fmt: skip
    return LlamaConfig(
        layers=integer(config, "num_hidden_layers", high=1024),
        width=width,
        ffn=integer(config, "intermediate_size", high=MAX_INPUTS),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=integer(config, "vocab_size", high=2**22),
        context=integer(config, "max_position_embeddings", high=2**24, default=2048),
        norm_eps=number(config, "rms_norm_eps", low=0.0, high=1.0, default=1e-6),
        tied=flag(config, "tie_word_embeddings", default=False),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        inverse_frequencies=inverse_frequencies(config, head_dim),
    )


def refuse(config: Mapping[str, Any], architecture: str, *flags: str) -> None:
    """Refused, by name, where one of these flags is set: each is a network that is not built here."""
    for key in flags:
        if flag(config, key, default=False):
            raise Refused(f"This {architecture} has {key} set, which is not supported.",
                          hint="most checkpoints do not")  # fmt: skip


def tensors(c: LlamaConfig) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Every matrix with its shape ``(N, K)`` and every vector with its length."""
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    matrices, vectors = {EMBEDDING: (c.vocab, c.width)}, {NORM: c.width}
    sizes = {"q": (q, c.width), "k": (kv, c.width), "v": (kv, c.width), "o": (c.width, q),
             "gate": (c.ffn, c.width), "up": (c.ffn, c.width), "down": (c.width, c.ffn)}  # fmt: skip
    for i in range(c.layers):
        matrices |= {name(i, short): size for short, size in sizes.items()}
        vectors |= {name(i, "attn_norm"): c.width, name(i, "ffn_norm"): c.width}
        if c.qkv_bias:
            vectors |= {bias(i, short): sizes[short][0] for short in ("q", "k", "v")}
        if c.qk_norm:
            vectors |= {name(i, "q_norm"): c.head_dim, name(i, "k_norm"): c.head_dim}
    if not c.tied:
        matrices[HEAD] = (c.vocab, c.width)
    return matrices, vectors


def name(layer: int, short: str) -> str:
    return f"model.layers.{layer}.{LAYER[short]}"


def bias(layer: int, short: str) -> str:
    return name(layer, short).removesuffix("weight") + "bias"


def program(c: LlamaConfig) -> Program:
    """The network as operations; ``T`` tokens in, logits ``(T, V)`` out."""
    p = Program(*tensors(c))
    x = p.embed(EMBEDDING)
    for i in range(c.layers):
        h = p.rms_norm(x, name(i, "attn_norm"), c.norm_eps)
        biases = [bias(i, s) for s in ("q", "k", "v")] if c.qkv_bias else []
        q, k, v = p.linear(h, name(i, "q"), name(i, "k"), name(i, "v"), biases=biases)
        if c.qk_norm:
            q = p.rms_norm(q, name(i, "q_norm"), c.norm_eps, heads=c.heads)
            k = p.rms_norm(k, name(i, "k_norm"), c.norm_eps, heads=c.kv_heads)
        q, k = p.rope(q, c.heads, c.inverse_frequencies), p.rope(k, c.kv_heads, c.inverse_frequencies)
        a = p.attention(q, k, v, heads=c.heads, kv_heads=c.kv_heads, scale=c.head_dim**-0.5)
        x = p.add(x, *p.linear(a, name(i, "o")))
        h = p.rms_norm(x, name(i, "ffn_norm"), c.norm_eps)
        x = p.add(x, *p.linear(p.activation("silu", *p.linear(h, name(i, "gate"), name(i, "up"))), name(i, "down")))
    (logits,) = p.linear(p.rms_norm(x, NORM, c.norm_eps), EMBEDDING if c.tied else HEAD)
    p.output = logits.index
    return p


def config_from_gguf(metadata: Mapping[str, Any], names: set[str], *, arch: str = "llama") -> dict[str, Any]:
    """GGUF metadata → the dictionary of an equal ``config.json``; ``arch`` is what the keys begin with.

    ``names`` are the tensors of the file: a file without ``output.weight`` has a tied head.
    """
    heads = metadata.get(f"{arch}.attention.head_count")
    config: dict[str, Any] = {
        "model_type": arch,
        "hidden_size": metadata.get(f"{arch}.embedding_length"),
        "intermediate_size": metadata.get(f"{arch}.feed_forward_length"),
        "num_hidden_layers": metadata.get(f"{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{arch}.attention.head_count_kv", heads),
        "rms_norm_eps": metadata.get(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": metadata.get(f"{arch}.rope.freq_base", 10000.0),
        "max_position_embeddings": metadata.get(f"{arch}.context_length", 2048),
        "tie_word_embeddings": "output.weight" not in names,
        "hidden_act": "silu",
    }
    if f"{arch}.attention.key_length" in metadata:
        config["head_dim"] = metadata[f"{arch}.attention.key_length"]
    scaling = metadata.get(f"{arch}.rope.scaling.type", "none")
    if scaling == "linear":
        config["rope_scaling"] = {"rope_type": "linear", "factor": metadata.get(f"{arch}.rope.scaling.factor", 1.0)}
    elif scaling != "none":
        config["rope_scaling"] = {"rope_type": scaling}
    return config
