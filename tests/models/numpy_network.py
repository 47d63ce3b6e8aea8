"""A Program interpreted in NumPy, operation by operation as program.py describes them: the oracle of rewritten ones."""

from __future__ import annotations

from collections.abc import Mapping
from math import erfc
from typing import Any

import numpy as np

from scrimp import models
from scrimp.models.hadamard import rotate
from scrimp.models.sidecars import F32
from scrimp.program import CURVES, LOOK_UPS, Op, Program

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 24, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip
QWEN2 = LLAMA | {"model_type": "qwen2", "tie_word_embeddings": True}
SEED = 1


def network(config: Mapping[str, Any]) -> tuple[Program, dict[str, F32]]:
    """Program and random weights, matrices and vectors."""
    _, program = models.build(config)
    rng = np.random.default_rng(4)
    weights = {name: rng.normal(0, 2 * shape[1] ** -0.5, shape) for name, shape in program.matrices.items()}
    weights |= {name: rng.normal(1, 0.3, size) for name, size in program.vectors.items()}
    return program, {name: values.astype(np.float32) for name, values in weights.items()}


def interpret(program: Program, weights: Mapping[str, Any], tokens: Any, kind: type = np.float64) -> Any:
    """Logits ``(T, V)``, calculated in ``kind``."""
    values: dict[int, Any] = {}
    for op in program.ops:
        made = _one(op, [values[index] for index in op.inputs], weights, tokens, kind)
        values.update(zip(op.outputs, made, strict=True))
    return values[program.output]


def _one(op: Op, x: list[Any], weights: Mapping[str, Any], tokens: Any, kind: type) -> list[Any]:
    matrices = [np.asarray(weights[name], kind) for name in op.weights]
    vectors = [np.asarray(weights[name], kind) if name else 0 for name in op.vectors]
    match op.kind:
        case "embed":
            rows = {"token": tokens, "position": np.arange(len(tokens)), "first": np.zeros_like(tokens)}
            return [matrices[0][rows[_named(LOOK_UPS, op.ints[0])]] * kind(op.floats[0])]
        case "rms_norm":
            heads = x[0].reshape(len(tokens), op.ints[0], -1)
            size = np.sqrt((heads**2).mean(axis=2, keepdims=True) + kind(op.floats[0]))
            return [(heads / size * (kind(op.floats[1]) + vectors[0])).reshape(x[0].shape)]
        case "layer_norm":
            away = x[0] - x[0].mean(axis=1, keepdims=True)
            size = np.sqrt((away**2).mean(axis=1, keepdims=True) + kind(op.floats[0]))
            return [away / size * vectors[0] + vectors[1]]
        case "linear":
            return [x[0] @ w.T + b for w, b in zip(matrices, vectors or [0] * len(matrices), strict=True)]
        case "rope":
            heads, width = op.ints
            angle = np.arange(len(tokens))[:, None, None] * np.asarray(op.floats, kind)
            a, b = np.split(x[0].reshape(len(tokens), heads, width), 2, axis=2)
            turned = [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)]
            return [np.concatenate(turned, axis=2).reshape(len(tokens), -1).astype(kind)]
        case "attention":
            return [_attention(op, x, kind)]
        case "activation":
            bent = _curve(_named(CURVES, op.ints[0]), x[0]).astype(kind)
            return [bent * x[1] if len(x) > 1 else bent]
        case "softcap":
            return [kind(op.floats[0]) * np.tanh(x[0] / kind(op.floats[0]))]
        case "add":
            return [x[0] + x[1]]
        case "hadamard":
            inverse, stretches = op.ints
            turned = rotate(x[0], SEED, stretches=stretches, inverse=bool(inverse)).astype(kind)
            return [turned + (vectors[0] if vectors else 0)]
        case "select":
            rest = x[0].copy()
            rest[:, op.ints] = 0
            return [rest, x[0][:, op.ints]]


def _named(numbers: Mapping[Any, int], number: int) -> str:
    return next(name for name, of in numbers.items() if of == number)


def _curve(name: str, x: Any) -> Any:
    match name:
        case "silu":
            return x / (1 + np.exp(-x))
        case "gelu":
            return x * np.vectorize(erfc)(-x / 2**0.5) / 2
        case "gelu_tanh":
            return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
        case _:
            return np.maximum(x, 0) ** 2


def _attention(op: Op, x: list[Any], kind: type) -> Any:
    _, heads, kv_heads, width, window, causal = op.ints
    q = x[0].reshape(-1, heads, width)
    k, v = (np.repeat(part.reshape(-1, kv_heads, width), heads // kv_heads, axis=1) for part in x[1:])
    scores = np.einsum("thd,shd->hts", q, k) * kind(op.floats[0])
    if cap := kind(op.floats[1]):
        scores = cap * np.tanh(scores / cap)
    behind = np.arange(len(q))[:, None] - np.arange(len(q))
    if causal:
        scores = np.where((behind >= 0) & (behind < (window or len(q))), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    shares /= shares.sum(axis=2, keepdims=True)
    return np.einsum("hts,shd->thd", shares, v).reshape(len(q), -1)
