"""Tiny networks with a tokenizer of words, as Hugging Face directories."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from scrimp import models

WORDS = [f"w{i}" for i in range(50)]
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(WORDS),
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip


def write_network(directory: Path, *, tokenizer: bool = True, **config: object) -> Path:
    """Random weights of a size that lets every layer matter."""
    whole = {**CONFIG, **config}
    _, program = models.build(whole)
    rng = np.random.default_rng(3)
    tensors = {name: rng.normal(0, shape[1] ** -0.5, shape) for name, shape in program.matrices.items()}
    tensors |= {name: rng.normal(1, 0.2, size) for name, size in program.vectors.items()}
    directory.mkdir(parents=True)
    save_file({name: values.astype(np.float32) for name, values in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(whole))
    if tokenizer:
        words = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(WORDS)}, "unk_token": WORDS[0]},
        }  # fmt: skip
        (directory / "tokenizer.json").write_text(json.dumps(words))
    return directory
