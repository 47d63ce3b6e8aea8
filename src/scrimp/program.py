"""A Program: the network as a flat list of operations on numbered buffers. Data, built in Python, walked in C++.

Every buffer holds one row of ``width`` floats per token. ``T`` tokens, ``H`` heads, ``D`` head width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["embed", "rms_norm", "linear", "rope", "attention", "swiglu", "add", "hadamard", "select"]

#: The number of each operation in the compiled engine, and what its parameters mean there.
KINDS: dict[Kind, int] = {
    "embed": 0,  # out = row `token` of weight 0
    "rms_norm": 1,  # out = rms_norm(in) * vector 0; floats: eps
    "linear": 2,  # out_i = weight_i in (+ vector_i if ints[i]); quantized once; floats: its scale, if fixed
    "rope": 3,  # out = rotated in; ints: heads, head_dim; floats: inverse frequencies (D/2)
    "attention": 4,  # out = attention(q, k, v); ints: cache, heads, kv_heads, head_dim; floats: scale
    "swiglu": 5,  # out = silu(in 0) * in 1
    "add": 6,  # out = in 0 + in 1
    "hadamard": 7,  # out = in rotated (+ vector 0); ints: 1 for the inverse, stretches; floats: models/hadamard.table
    "select": 8,  # out 0 = in with the channels of ints zeroed; out 1 = these channels
}


@dataclass(frozen=True, slots=True)
class Buffer:
    """A numbered activation: ``(T, width)`` float32."""

    index: int
    width: int


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. ``weights`` name matrices, ``vectors`` name float vectors ("" for none)."""

    kind: Kind
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    ints: tuple[int, ...] = ()
    floats: tuple[float, ...] = ()

    def __str__(self) -> str:
        outs, ins = (", ".join(f"b{i}" for i in side) for side in (self.outputs, self.inputs))
        return f"{outs} = {self.kind}({', '.join(filter(None, (ins, *self.weights, *filter(None, self.vectors))))})"


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys and values of one attention layer: ``(kv_heads, D)`` each for a position (formats: engine/cache.py)."""

    kv_heads: int
    head_dim: int


@dataclass(slots=True)
class Program:
    """The operations of a network in order, with a method per operation that appends it and returns its output."""

    matrices: dict[str, tuple[int, int]]  #: shape (N, K) of every matrix the network may use
    vectors: dict[str, int]  #: length of every vector
    ops: list[Op] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)  #: width of every buffer
    caches: list[Cache] = field(default_factory=list)
    output: int = -1  #: the buffer of the logits

    def embed(self, weight: str) -> Buffer:
        """Row ``token`` of ``weight (V, K)``."""
        return self._append("embed", (), (self.matrices[weight][1],), weights=(weight,))[0]

    def rms_norm(self, x: Buffer, vector: str, eps: float) -> Buffer:
        """``x / sqrt(mean(x²) + eps) · vector``. Source: Zhang & Sennrich 2019, arXiv:1910.07467."""
        assert self.vectors[vector] == x.width, f"{vector} has {self.vectors[vector]} values for a width of {x.width}"
        return self._append("rms_norm", (x,), (x.width,), vectors=(vector,), floats=(eps,))[0]

    def linear(self, x: Buffer, *weights: str, biases: Sequence[str] = ()) -> tuple[Buffer, ...]:
        """``W x (+ b)`` for each weight; ``x`` is quantized once for all of them."""
        for weight in weights:
            assert self.matrices[weight][1] == x.width, (
                f"{weight} takes {self.matrices[weight][1]} inputs, not {x.width}"
            )
        widths = tuple(self.matrices[weight][0] for weight in weights)
        return self._append("linear", (x,), widths, weights=weights, vectors=tuple(biases))

    def rope(self, x: Buffer, heads: int, inverse_frequencies: Sequence[float]) -> Buffer:
        """Rotate the two halves of every head by ``position · frequency``. Source: Su et al. 2021, arXiv:2104.09864."""
        assert x.width == heads * 2 * len(inverse_frequencies)
        return self._append(
            "rope", (x,), (x.width,), ints=(heads, x.width // heads), floats=tuple(inverse_frequencies)
        )[0]

    def attention(self, q: Buffer, k: Buffer, v: Buffer, *, heads: int, kv_heads: int, scale: float) -> Buffer:
        """Causal attention over all positions so far; keys and values join the cache of this layer."""
        head_dim = q.width // heads
        assert k.width == v.width == kv_heads * head_dim
        self.caches.append(Cache(kv_heads, head_dim))
        ints = (len(self.caches) - 1, heads, kv_heads, head_dim)
        return self._append("attention", (q, k, v), (q.width,), ints=ints, floats=(scale,))[0]

    def swiglu(self, gate: Buffer, up: Buffer) -> Buffer:
        """``silu(gate) · up``. Source: Shazeer 2020, arXiv:2002.05202."""
        assert gate.width == up.width
        return self._append("swiglu", (gate, up), (gate.width,))[0]

    def add(self, a: Buffer, b: Buffer) -> Buffer:
        assert a.width == b.width
        return self._append("add", (a, b), (a.width,))[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self.ops))

    def _append(
        self,
        kind: Kind,
        inputs: tuple[Buffer, ...],
        widths: tuple[int, ...],
        *,
        weights: tuple[str, ...] = (),
        vectors: tuple[str, ...] = (),
        ints: tuple[int, ...] = (),
        floats: tuple[float, ...] = (),
    ) -> tuple[Buffer, ...]:
        outputs = tuple(Buffer(len(self.widths) + i, width) for i, width in enumerate(widths))
        self.widths.extend(widths)
        numbers = tuple(b.index for b in inputs), tuple(b.index for b in outputs)
        self.ops.append(Op(kind, *numbers, weights, vectors, ints, floats))
        return outputs


def offsets(program: Program) -> tuple[list[int], int]:
    """Give every buffer a place in a token's row of the arena so that buffers alive together never overlap.

    Returns:
        the offset of each buffer and the width of a row, both in floats (multiples of 16).
    """
    last_use = {index: at for at, op in enumerate(program.ops) for index in (*op.inputs, *op.outputs)}
    place: dict[int, tuple[int, int]] = {}
    alive: list[tuple[int, int, int]] = []  # (offset, end, last use), sorted by offset
    for at, op in enumerate(program.ops):
        alive = [slot for slot in alive if slot[2] >= at]
        for index in op.outputs:
            if index == program.output:  # the logits go straight to the caller
                place[index] = (0, 0)
                continue
            size, start = -(-program.widths[index] // 16) * 16, 0
            for offset, end, _ in alive:
                if offset - start >= size:
                    break
                start = max(start, end)
            place[index] = (start, start + size)
            alive = sorted([*alive, (start, start + size, last_use[index])])
    return [place[i][0] for i in range(len(program.widths))], max(end for _, end in place.values())
