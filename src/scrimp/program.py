"""A Program: the network as a flat list of operations on numbered buffers. Data, built in Python, walked in C++.

Every buffer holds one row of ``width`` floats per token. ``T`` tokens, ``H`` heads, ``D`` head width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "embed", "rms_norm", "linear", "rope", "attention", "activation", "add", "hadamard", "select", "layer_norm",
    "softcap",
]  # fmt: skip
Curve = Literal["silu", "gelu", "gelu_tanh", "relu2"]
LookUp = Literal["token", "position", "first"]

#: The number of each operation in the compiled engine, and what its parameters mean there.
KINDS: dict[Kind, int] = {
    "embed": 0,  # out = row of weight 0, times a factor; ints: LOOK_UPS, which row; floats: the factor
    "rms_norm": 1,  # out = rms_norm(in) * (offset + vector 0); ints: heads, normalized one by one; floats: eps, offset
    "linear": 2,  # out_i = weight_i in (+ vector_i); quantized once; ints: 1, one scale a token; floats: it, if fixed
    "rope": 3,  # out = rotated in; ints: heads, head_dim; floats: inverse frequencies (D/2)
    "attention": 4,  # ints: cache, heads, kv_heads, head_dim, window or 0, causal; floats: scale, cap or 0
    "activation": 5,  # out = f(in 0) (* in 1); ints: CURVES, which f
    "add": 6,  # out = in 0 + in 1
    "hadamard": 7,  # out = in rotated (+ vector 0); ints: 1 for the inverse, stretches; floats: models/hadamard.table
    "select": 8,  # out 0 = in with the channels of ints zeroed; out 1 = these channels
    "layer_norm": 9,  # out = layer_norm(in) * vector 0 + vector 1; floats: eps
    "softcap": 10,  # out = cap * tanh(in / cap), in place; floats: cap
}
#: What looks at each number, or row, once before it writes it: the kernels allow the output to be an input.
IN_PLACE: frozenset[Kind] = frozenset({"rms_norm", "layer_norm", "rope", "activation", "add"})
#: The functions of ``activation`` (core/kernels/kernels.h has their formulas).
CURVES: dict[Curve, int] = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu2": 3}
#: Whose row ``embed`` takes: the token's, its position's, or always the first.
LOOK_UPS: dict[LookUp, int] = {"token": 0, "position": 1, "first": 2}


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

    def embed(self, weight: str, *, row: LookUp = "token", scale: float = 1.0) -> Buffer:
        """A row of ``weight (V, K)`` times ``scale``."""
        width = self.matrices[weight][1]
        return self._append("embed", (), (width,), weights=(weight,), ints=(LOOK_UPS[row],), floats=(scale,))[0]

    def rms_norm(self, x: Buffer, vector: str, eps: float, *, heads: int = 1, offset: float = 0.0) -> Buffer:
        """``x / sqrt(mean(x²) + eps) · (offset + vector)``, of every head by itself.

        Source: Zhang & Sennrich 2019, arXiv:1910.07467.
        """
        size = self.vectors[vector]
        assert size * heads == x.width, f"{vector} has {size} values for {heads} heads in a width of {x.width}"
        return self._append("rms_norm", (x,), (x.width,), vectors=(vector,), ints=(heads,), floats=(eps, offset))[0]

    def layer_norm(self, x: Buffer, vector: str, bias: str, eps: float) -> Buffer:
        """``(x - mean(x)) / sqrt(var(x) + eps) · vector + bias``. Source: Ba et al. 2016, arXiv:1607.06450."""
        assert self.vectors[vector] == self.vectors[bias] == x.width
        return self._append("layer_norm", (x,), (x.width,), vectors=(vector, bias), floats=(eps,))[0]

    def linear(
        self, x: Buffer, *weights: str, biases: Sequence[str] = (), token_scale: bool = False
    ) -> tuple[Buffer, ...]:
        """``W x (+ b)`` for each weight; ``x`` is quantized once for all of them.

        ``token_scale``: all inputs of a token share a scale when they become int8, as the network was trained.
        """
        for weight in weights:
            assert self.matrices[weight][1] == x.width, (
                f"{weight} takes {self.matrices[weight][1]} inputs, not {x.width}"
            )
        widths = tuple(self.matrices[weight][0] for weight in weights)
        ints = (1,) if token_scale else ()
        return self._append("linear", (x,), widths, weights=weights, vectors=tuple(biases), ints=ints)

    def rope(self, x: Buffer, heads: int, inverse_frequencies: Sequence[float]) -> Buffer:
        """Rotate the two halves of every head by ``position · frequency``. Source: Su et al. 2021, arXiv:2104.09864."""
        assert x.width == heads * 2 * len(inverse_frequencies)
        return self._append(
            "rope", (x,), (x.width,), ints=(heads, x.width // heads), floats=tuple(inverse_frequencies)
        )[0]

    def attention(
        self,
        q: Buffer,
        k: Buffer,
        v: Buffer,
        *,
        heads: int,
        kv_heads: int,
        scale: float,
        window: int = 0,
        causal: bool = True,
        softcap: float = 0.0,
    ) -> Buffer:
        """Attention over all positions so far; keys and values join the cache of this layer.

        ``window``: where not 0, over the last so many only, the token's own among them. Not ``causal``: over all tokens
        of the run, which is then the whole text. ``softcap``: where not 0, scores become ``cap · tanh(score / cap)``.
        """
        head_dim = q.width // heads
        assert k.width == v.width == kv_heads * head_dim
        assert causal or not window
        self.caches.append(Cache(kv_heads, head_dim))
        ints = (len(self.caches) - 1, heads, kv_heads, head_dim, window, int(causal))
        return self._append("attention", (q, k, v), (q.width,), ints=ints, floats=(scale, softcap))[0]

    def activation(self, curve: Curve, x: Buffer, times: Buffer | None = None) -> Buffer:
        """``curve(x)``, or ``curve(x) · times``: a gated unit. Source: Shazeer 2020, arXiv:2002.05202."""
        assert times is None or times.width == x.width
        inputs = (x,) if times is None else (x, times)
        return self._append("activation", inputs, (x.width,), ints=(CURVES[curve],))[0]

    def softcap(self, x: Buffer, cap: float) -> Buffer:
        """``cap · tanh(x / cap)`` in the place of ``x``: the product that makes logits writes where they are read."""
        self.ops.append(Op("softcap", (x.index,), (x.index,), floats=(cap,)))
        return x

    @property
    def head(self) -> Op | None:
        """The product that makes the logits; None where something else makes the output."""
        return next((op for op in self.ops if op.kind == "linear" and self.output in op.outputs), None)

    @property
    def causal(self) -> bool:
        """Does a token look at nothing behind it? If not, a text runs whole."""
        return all(op.ints[5] for op in self.ops if op.kind == "attention")

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

    Where an operation is the last to use an input, its output may lie there (``IN_PLACE``): fewer lines go through the
    caches.

    Returns:
        the offset of each buffer and the width of a row, both in floats (multiples of 16).
    """
    last_use = {index: at for at, op in enumerate(program.ops) for index in (*op.inputs, *op.outputs)}
    place: dict[int, tuple[int, int]] = {}
    alive: list[tuple[int, int, int]] = []  # (offset, end, last use), sorted by offset
    for at, op in enumerate(program.ops):
        alive = [slot for slot in alive if slot[2] >= at]
        for index in op.outputs:
            if index in place:  # made anew where it is
                continue
            if index == program.output:  # the logits go straight to the caller
                place[index] = (0, 0)
                continue
            size, start = -(-program.widths[index] // 16) * 16, 0
            spent = next(
                (i for i in op.inputs if last_use[i] == at and program.widths[i] == program.widths[index]), None
            )
            if op.kind in IN_PLACE and spent is not None:
                start = place[spent][0]
                alive.remove((*place[spent], at))
            else:
                for offset, end, _ in alive:
                    if offset - start >= size:
                        break
                    start = max(start, end)
            place[index] = (start, start + size)
            alive = sorted([*alive, (start, start + size, last_use[index])])
    return [place[i][0] for i in range(len(program.widths))], max(end for _, end in place.values())
