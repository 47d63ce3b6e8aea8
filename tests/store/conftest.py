"""A network of one layer whose sides fit nothing: 40 inputs, 24 words, a ragged group everywhere, odd vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "llama", "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 24, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip
SHAPES = {
    "model.embed_tokens.weight": (24, 40),
    "model.layers.0.input_layernorm.weight": (40,),
    "model.layers.0.self_attn.q_proj.weight": (48, 40),
    "model.layers.0.self_attn.k_proj.weight": (24, 40),
    "model.layers.0.self_attn.v_proj.weight": (24, 40),
    "model.layers.0.self_attn.o_proj.weight": (40, 48),
    "model.layers.0.post_attention_layernorm.weight": (40,),
    "model.layers.0.mlp.gate_proj.weight": (72, 40),
    "model.layers.0.mlp.up_proj.weight": (72, 40),
    "model.layers.0.mlp.down_proj.weight": (40, 72),
    "model.norm.weight": (40,),
    "lm_head.weight": (24, 40),
}


def write_network(directory: Path) -> Path:
    generator = np.random.default_rng(0)
    directory.mkdir()
    save_file(
        {n: generator.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}, directory / "model.safetensors"
    )
    (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory without a tokenizer; nobody may change it."""
    return write_network(tmp_path_factory.mktemp("networks") / "small")
