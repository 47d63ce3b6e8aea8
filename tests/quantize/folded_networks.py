"""Tiny random networks in memory, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scrimp import models
from scrimp.engine import Engine
from scrimp.formats import parse
from scrimp.program import Op, Program
from scrimp.quantize import rtn
from scrimp.tensors import F32, from_floats

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
KINDS = {
    "llama, grouped queries": {},
    "llama, a key head each": {"num_key_value_heads": 8},
    "llama, tied": {"tie_word_embeddings": True},
    "qwen2, biases": {"model_type": "qwen2"},
    "qwen2, wide heads": {"model_type": "qwen2", "num_attention_heads": 4, "head_dim": 24},
}
TOKENS = np.random.default_rng(1).integers(0, 50, 40).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Network:
    program: Program
    weights: dict[str, F32]
    vectors: dict[str, F32]

    def with_tensors(self, weights: Mapping[str, F32], vectors: Mapping[str, F32]) -> Network:
        return Network(self.program, {**self.weights, **weights}, {**self.vectors, **vectors})

    def engine(self) -> Engine:
        matrices = {name: from_floats(parse("f32"), weight) for name, weight in self.weights.items()}
        return Engine(self.program, matrices, self.vectors, context=64, threads=1, isa="scalar", arithmetic="f32")

    def logits_of(self, format: str) -> F32:
        """Of a network whose linear layers are rounded to nearest, with int8 inputs: as a user runs it."""
        read = {name for op in self.program.ops if op.kind == "linear" for name in op.weights}
        matrices = {
            name: rtn.quantize(weight, parse(format if name in read else "f32"))
            for name, weight in self.weights.items()
        }
        engine = Engine(self.program, matrices, self.vectors, context=64, threads=1, isa="scalar")
        return engine.forward(TOKENS, 0, all_logits=True)

    def logits(self) -> F32:
        return self.engine().forward(TOKENS, 0, all_logits=True)

    def taps(self, *buffers: int) -> dict[int, F32]:
        """Buffers ``(T, width)`` of one run over the tokens."""
        return self.engine().run(TOKENS, 0, 0, len(self.program.ops), outputs=buffers)

    def in_float64(self) -> Network:
        wide = (
            {name: value.astype(np.float64) for name, value in part.items()} for part in (self.weights, self.vectors)
        )
        return Network(self.program, *wide)

    def exact_logits(self) -> np.ndarray:
        """The Program by NumPy, one operation after the other, in the precision of the weights."""
        found: dict[int, np.ndarray] = {}
        for op in self.program.ops:
            made = self._run(op, [found[index] for index in op.inputs])
            found.update(zip(op.outputs, made, strict=True))
        return found[self.program.output]

    def _run(self, op: Op, x: list[np.ndarray]) -> list[np.ndarray]:
        if op.kind == "embed":
            return [self.weights[op.weights[0]][TOKENS]]
        if op.kind == "rms_norm":
            rms = np.sqrt((x[0] ** 2).mean(axis=1, keepdims=True) + op.floats[0])
            return [x[0] / rms * (op.floats[1] + self.vectors[op.vectors[0]])]
        if op.kind == "linear":
            biases = [self.vectors[name] for name in op.vectors] or [0.0] * len(op.weights)
            return [x[0] @ self.weights[name].T + bias for name, bias in zip(op.weights, biases, strict=True)]
        if op.kind == "rope":
            heads, head_dim = op.ints
            angles = np.arange(len(x[0]))[:, None] * np.array(op.floats)
            low, high = np.split(x[0].reshape(-1, heads, head_dim), 2, axis=2)
            cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
            return [np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=2).reshape(len(x[0]), -1)]
        if op.kind == "attention":
            return [self._attention(op, *x)]
        if op.kind == "activation":
            return [x[0] / (1 + np.exp(-x[0])) * x[1]]
        assert op.kind == "add"
        return [x[0] + x[1]]

    def _attention(self, op: Op, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        _, heads, kv_heads, head_dim, *_ = op.ints
        length = len(q)
        q = q.reshape(length, heads, head_dim)
        k, v = (np.repeat(it.reshape(length, kv_heads, head_dim), heads // kv_heads, axis=1) for it in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) * op.floats[0]
        scores[:, ~np.tri(length, dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        return np.einsum("hts,shd->thd", weights, v).reshape(length, -1)


def network(**config: object) -> Network:
    _, program = models.build({**CONFIG, **config})
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 1.5 * cols**-0.5, (rows, cols)) for name, (rows, cols) in program.matrices.items()}
    vectors = {name: rng.normal(1, 0.3, size) for name, size in program.vectors.items()}
    wide = ({name: value.astype(np.float32) for name, value in part.items()} for part in (weights, vectors))
    return Network(program, *wide)
