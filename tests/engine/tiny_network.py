"""A tiny random network of int8 weights, whose results have the same bits however its tokens are cut into steps."""

import numpy as np

from scrimp import models
from scrimp.engine import Engine, pick_isa
from scrimp.formats import parse
from scrimp.tensors import from_codes

CONFIG = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 3, "vocab_size": 97,
          "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 300}  # fmt: skip


def int8_tensor(shape, rng):
    fmt = parse("int8:g32")
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    scales = (rng.random((shape[0], fmt.groups(shape[1]))) * 0.03 / shape[1] ** 0.5).astype(np.float16)
    return from_codes(fmt, codes, scales)


def tiny_engine(**settings):
    rng = np.random.default_rng(11)
    parsed, program = models.build(CONFIG)
    matrices = {name: int8_tensor(shape, rng) for name, shape in program.matrices.items()}
    vectors = {name: rng.normal(1, 0.1, size).astype(np.float32) for name, size in program.vectors.items()}
    options = {"context": parsed.context, "threads": 2, "isa": pick_isa()} | settings
    return Engine(program, matrices, vectors, **options)
