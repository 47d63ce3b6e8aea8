"""BERT as an encoder: every token sees all others, and hidden states come out. Source: Devlin et al. 2018, 1810.04805.

One text at a time, so all tokens have the first token type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scrimp.errors import Refused
from scrimp.models import llama
from scrimp.models.fields import integer, number
from scrimp.models.llama import MAX_INPUTS
from scrimp.program import Curve, Program

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
NORM = "embeddings.LayerNorm"

#: short name → the Hugging Face name inside ``encoder.layer.<i>.``, without ``.weight`` and ``.bias``
LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
#: What checkpoints hold that says nothing about hidden states: a layer that only classifiers read, and row numbers.
UNUSED = r"pooler\.dense\.(weight|bias)|embeddings\.position_ids"
_CURVES: dict[str, Curve] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
}


Pooling = Literal["mean", "first"]


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The shape of the network; ``parse`` reads and checks it."""

    layers: int
    width: int
    ffn: int
    heads: int
    vocab: int
    context: int
    types: int
    norm_eps: float
    curve: Curve
    pooling: Pooling  #: what an embedding is: the mean of all hidden states, or the first
    max_tokens: int  #: of a text that is embedded


def parse(config: Mapping[str, Any]) -> BertConfig:
    """Read a ``config.json``; raises Refused for what is missing, out of range or not supported."""
    act = config.get("hidden_act", "gelu")
    if not isinstance(act, str) or act not in _CURVES:
        raise Refused(f"hidden_act '{str(act)[:40]}' is not supported here.", hint=f"supported: {', '.join(_CURVES)}")
    positions = config.get("position_embedding_type") or "absolute"
    if positions != "absolute":
        raise Refused(f"position_embedding_type '{str(positions)[:40]}' is not supported.", hint="supported: absolute")
    llama.refuse(config, "bert", "is_decoder", "add_cross_attention")
    heads = integer(config, "num_attention_heads", high=4096)
    width = integer(config, "hidden_size", high=MAX_INPUTS)
    if width % heads or width // heads % 4 or width // heads > 512:
        raise Refused(f"config: hidden_size {width:,} does not make {heads} heads.",
                      hint="a head has a multiple of 4 inputs, at most 512; the file is damaged")  # fmt: skip
    context = integer(config, "max_position_embeddings", high=2**16, default=512)
    embedding = config.get("sentence_embedding") or {}
    if not isinstance(embedding, dict) or embedding.get("pooling", "mean") not in ("mean", "first"):
        raise Refused(
            "config: 'sentence_embedding' does not say how to pool.", hint="mean or first; the file is damaged"
        )
    return BertConfig(
        layers=integer(config, "num_hidden_layers", high=1024),
        width=width,
        ffn=integer(config, "intermediate_size", high=MAX_INPUTS),
        heads=heads,
        vocab=integer(config, "vocab_size", high=2**22),
        context=context,
        types=integer(config, "type_vocab_size", high=1024, default=2),
        norm_eps=number(config, "layer_norm_eps", low=0.0, high=1.0, default=1e-12),
        curve=_CURVES[act],
        pooling=embedding.get("pooling", "mean"),
        max_tokens=min(integer(embedding, "max_tokens", low=1, high=2**24, default=context), context),
    )


def name(layer: int, short: str) -> str:
    return f"encoder.layer.{layer}.{LAYER[short]}"


def tensors(c: BertConfig) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Every matrix with its shape ``(N, K)`` and every vector with its length."""
    matrices = {WORDS: (c.vocab, c.width), POSITIONS: (c.context, c.width), TYPES: (c.types, c.width)}
    sizes = dict.fromkeys(("q", "k", "v", "o"), (c.width, c.width))
    sizes |= {"up": (c.ffn, c.width), "down": (c.width, c.ffn)}
    vectors = {f"{NORM}.weight": c.width, f"{NORM}.bias": c.width}
    for i in range(c.layers):
        matrices |= {f"{name(i, short)}.weight": size for short, size in sizes.items()}
        vectors |= {f"{name(i, short)}.bias": size[0] for short, size in sizes.items()}
        norms = (name(i, "attn_norm"), name(i, "ffn_norm"))
        vectors |= {f"{norm}.{part}": c.width for norm in norms for part in ("weight", "bias")}
    return matrices, vectors


def program(c: BertConfig) -> Program:
    """The network as operations; all ``T`` tokens of a text in, hidden states ``(T, width)`` out."""
    p = Program(*tensors(c))

    def linear(x: Any, i: int, *shorts: str) -> Any:
        names = [name(i, short) for short in shorts]
        return p.linear(x, *(f"{n}.weight" for n in names), biases=[f"{n}.bias" for n in names])

    x = p.add(p.embed(WORDS), p.embed(TYPES, row="first"))
    x = p.add(x, p.embed(POSITIONS, row="position"))
    x = p.layer_norm(x, f"{NORM}.weight", f"{NORM}.bias", c.norm_eps)
    for i in range(c.layers):
        q, k, v = linear(x, i, "q", "k", "v")
        a = p.attention(q, k, v, heads=c.heads, kv_heads=c.heads, scale=(c.width // c.heads) ** -0.5, causal=False)
        norm = name(i, "attn_norm")
        x = p.layer_norm(p.add(x, *linear(a, i, "o")), f"{norm}.weight", f"{norm}.bias", c.norm_eps)
        h = p.activation(c.curve, *linear(x, i, "up"))
        norm = name(i, "ffn_norm")
        x = p.layer_norm(p.add(x, *linear(h, i, "down")), f"{norm}.weight", f"{norm}.bias", c.norm_eps)
    p.output = x.index
    return p
