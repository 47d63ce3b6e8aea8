"""A whole model, as small as one can be: a Hugging Face directory of one layer that knows 24 words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WORDS = [f"w{i}" for i in range(24)]
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(WORDS),
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip


def write_tiny_model(directory: Path, seed: int = 0, words: list[str] = WORDS) -> Path:
    """Random weights; ``seed`` tells models apart."""
    rng = np.random.default_rng(seed)
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden // 2, hidden),
        "self_attn.v_proj": (hidden // 2, hidden), "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }  # fmt: skip
    tensors = {f"model.layers.0.{name}.weight": rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    for table in ("model.embed_tokens", "lm_head"):
        tensors[f"{table}.weight"] = rng.normal(0, 1, (len(words), hidden))
    for norm in ("model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"):
        tensors[f"{norm}.weight"] = np.ones(hidden)
    directory.mkdir(parents=True)
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": len(words)}))
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": words[0]},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


def write_text(path: Path, count: int, seed: int = 0) -> Path:
    """``count`` random words of the vocabulary."""
    path.write_text(" ".join(np.random.default_rng(seed).choice(WORDS, count)), encoding="utf-8")
    return path
