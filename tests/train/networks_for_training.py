"""Tiny networks with random weights, opened in the engine and in torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from scrimp import models
from scrimp.engine import Engine, pick_isa
from scrimp.formats import parse
from scrimp.program import Program
from scrimp.tensors import F32, QTensor, from_floats
from scrimp.train.executor import Network
from scrimp.train.quantized_weight import FixedWeight

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip
WORDS = [f"w{i}" for i in range(50)]
QWEN2 = {**CONFIG, "model_type": "qwen2", "tie_word_embeddings": True}


def program_of(config: Mapping[str, object]) -> Program:
    program: Program = models.build(dict(config))[1]
    return program


def random_weights(program: Program, seed: int = 3) -> tuple[dict[str, F32], dict[str, F32]]:
    rng = np.random.default_rng(seed)
    matrices = {n: rng.normal(0, s[1] ** -0.5, s).astype(np.float32) for n, s in program.matrices.items()}
    return matrices, {n: rng.normal(1, 0.2, s).astype(np.float32) for n, s in program.vectors.items()}


def engine_of(program: Program, matrices: Mapping[str, F32 | QTensor], vectors: Mapping[str, F32], **options) -> Engine:
    stored = {n: m if isinstance(m, QTensor) else from_floats(parse("f32"), m) for n, m in matrices.items()}
    return Engine(program, stored, vectors, context=32, threads=1, isa=pick_isa(), **options)


def network_of(program: Program, matrices: Mapping[str, F32], vectors: Mapping[str, F32]) -> Network:
    return Network(
        program,
        {name: FixedWeight(values) for name, values in matrices.items()},
        {name: torch.from_numpy(values) for name, values in vectors.items()},
    )


def write_network(directory: Path, **config: object) -> Path:
    """A Hugging Face directory with random weights and a tokenizer that knows ``w0 … w49``."""
    whole = {**CONFIG, **config}
    matrices, vectors = random_weights(program_of(whole))
    directory.mkdir(parents=True)
    save_file({**matrices, **vectors}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(whole))
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


def words(count: int, seed: int = 5) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))
