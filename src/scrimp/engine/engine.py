"""A loaded Program: prefill, decode, slices and taps. Between two calls everything happens in C++, without the GIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.engine.activations import ACTIVATION_BLOCK, ActivationBlock, block_inputs
from scrimp.engine.cache import BLOCK_LOG2, KV_NUMBERS, Kv, page_bytes
from scrimp.engine.pages import Pages, pages_for
from scrimp.engine.sequences import Run, Sequences
from scrimp.formats.codebooks import in_steps
from scrimp.program import KINDS, Op, Program, offsets
from scrimp.tensors import QTensor

F32 = NDArray[np.float32]
Arithmetic = Literal["int8", "int8-static", "f32"]

#: Tokens in one run: enough to keep the products busy, few enough for the activations to stay near the cores.
CHUNK = 256

_ELEMENTS = {"f32": 0, "f16": 1, "bf16": 2, "int": 3, "ternary": 4, "binary": 5, "table": 6}
_SCALES = {None: 0, "f16": 1, "f32": 2, "bf16": 3, "e8m0": 4}


@dataclass(frozen=True, slots=True)
class OpTime:
    """What one operation of the Program cost since the profile was reset."""

    op: Op
    calls: int
    seconds: float


def core_matrix(tensor: QTensor) -> _core.Matrix:
    """A QTensor as the compiled core sees it: pointers into the same memory."""
    element, rows, cols = tensor.format.element, *tensor.shape
    table = tensor.table()
    steps = None if table is None else in_steps(table)
    return _core.Matrix(
        element=_ELEMENTS[element.name if element.kind == "float" else element.kind],
        bits=element.bits,
        rows=rows,
        cols=cols,
        planes=list(tensor.planes),
        spans=list(element.spans()),
        step=element.step,
        zero=element.zero,
        scale_type=_SCALES[tensor.format.scale],
        scales=tensor.scales,
        mins=tensor.mins,
        group=tensor.format.group(cols),
        one_scale=tensor.format.block == "tensor",
        numbers=[] if table is None else table.tolist(),
        steps=[] if steps is None else steps.levels.tolist(),
        factor=1.0 if steps is None else float(steps.factor),
    )


class Engine:
    """Runs one Program: a sequence whose positions the caller chooses, and up to ``sequences`` more that share pages.

    ``arithmetic="f32"`` multiplies decoded weights with float32 activations: the reference that losses are measured
    against. ``"int8"`` quantizes activations per token and block of ``activation_block`` inputs, and is what a user
    runs; with ``"int8-static"`` the Program brings a scale for the inputs of every product
    (:func:`scrimp.engine.activations.with_input_scales`), and what is larger saturates.
    ``kv`` is the format of the cache; without one float32 in reference arithmetic, else float16. It has pages for the
    whole context of every sequence, or as many as ``cache_bytes`` holds; memory is used only as far as positions are.
    """

    def __init__(
        self,
        program: Program,
        matrices: Mapping[str, QTensor],
        vectors: Mapping[str, F32],
        *,
        context: int,
        threads: int,
        isa: str,
        arithmetic: Arithmetic = "int8",
        chunk: int = CHUNK,
        kv: Kv | None = None,
        activation_block: ActivationBlock = ACTIVATION_BLOCK,
        sequences: int = 0,
        cache_bytes: int | None = None,
    ) -> None:
        self.program, self.context, self.threads, self.isa = program, context, threads, isa
        self.chunk = min(chunk, context) if program.causal else context  # what sees all runs whole
        self.kv: Kv = kv or ("f32" if arithmetic == "f32" else "f16")
        assert arithmetic != "int8-static" or all(op.floats for op in program.ops if op.kind == "linear")
        self.vocab = program.widths[program.output]
        matrix_index = {name: i for i, name in enumerate(matrices)}
        vector_index = {name: i for i, name in enumerate(vectors)}
        places, arena = offsets(program)
        size = page_bytes(program, self.kv)
        count = (sequences + 1) * pages_for(context)
        if cache_bytes is not None and size:
            count = min(count, cache_bytes // size)
        self.pages = Pages(count, size)
        self._own: list[int] = []  # pages of the sequence whose positions the caller chooses
        self._core = _core.Engine(
            ops=[_tuple(op, matrix_index, vector_index) for op in program.ops],
            places=list(zip(places, program.widths, strict=True)),
            arena=arena,
            output=program.output,
            matrices=[core_matrix(tensor) for tensor in matrices.values()],
            vectors=[np.ascontiguousarray(vector, np.float32) for vector in vectors.values()],
            caches=[(cache.kv_heads, cache.head_dim) for cache in program.caches],
            context=context,
            pages=count,
            chunk=self.chunk,
            threads=threads,
            float_arithmetic=arithmetic == "f32",
            activation_block=block_inputs(activation_block),
            cache=KV_NUMBERS[self.kv],
            cache_block_log2=BLOCK_LOG2,
            isa=isa,
        )
        core, last = self._core, len(program.ops)  # not self: what refers to itself lives until it is looked for
        self._run_all: Run = lambda tokens, spans, tables, logits: core.run(tokens, spans, tables, 0, last, logits)
        self.sequences = Sequences(
            sequences, context, self.vocab, self.chunk, self.pages, self._run_all, core.copy_page
        )

    def forward(self, tokens: Sequence[int] | NDArray[np.int32], start: int, *, all_logits: bool = False) -> F32:
        """Run tokens at positions ``start …``; the cache must hold everything before ``start``.

        Shapes
            returns ``(T, V)`` with ``all_logits``, else ``(1, V)``: the logits after the last token.
        """
        ids = np.ascontiguousarray(tokens, np.int32)
        out = np.empty((ids.size if all_logits else 1, self.vocab), np.float32)
        with self.sequences.lock:
            for at in range(0, ids.size, self.chunk):
                piece = ids[at : at + self.chunk]
                wanted = piece.size if all_logits else int(at + piece.size == ids.size)
                rows = out[at : at + piece.size] if all_logits else out[:wanted]
                self._run_all(piece, self._span(start + at, piece.size, wanted), self.sequences.tables, rows)
        return out

    def _span(self, start: int, tokens: int, wanted: int) -> NDArray[np.int64]:
        """Of the sequence whose positions the caller chooses; it has pages for them from now on."""
        own, row = self._own, self.sequences.count
        while len(own) < pages_for(min(start + tokens, self.context)):
            own.append(self.pages.take(None))
            self.sequences.tables[row, len(own) - 1] = own[-1]
        return np.array([(row, start, tokens, wanted)], np.int64)

    def run(
        self,
        tokens: Sequence[int] | NDArray[np.int32],
        start: int,
        first: int,
        last: int,
        *,
        inputs: Mapping[int, F32] | None = None,
        outputs: Sequence[int] = (),
    ) -> dict[int, F32]:
        """Run operations ``[first, last)`` of at most ``chunk`` tokens and tap buffers.

        ``inputs`` are buffers ``(T, width)`` put in place first; the result holds each buffer of ``outputs`` as it was
        right after its operation.
        """
        ids = np.ascontiguousarray(tokens, np.int32)
        found = {buffer: np.empty((ids.size, self.program.widths[buffer]), np.float32) for buffer in outputs}
        taps = {buffer: array for buffer, array in found.items() if buffer != self.program.output}
        logits = None
        if last == len(self.program.ops):
            logits = found.get(self.program.output)
            logits = np.empty((ids.size, self.vocab), np.float32) if logits is None else logits
        given = [(buffer, np.ascontiguousarray(array, np.float32)) for buffer, array in (inputs or {}).items()]
        with self.sequences.lock:
            span = self._span(start, ids.size, ids.size)
            self._core.run(ids, span, self.sequences.tables, first, last, logits, given, list(taps.items()))
        return found

    def profile(self) -> list[OpTime]:
        """Seconds of every operation since :meth:`reset_profile`."""
        runs = self._core.runs()
        return [OpTime(op, runs, s) for op, s in zip(self.program.ops, self._core.seconds(), strict=True)]

    def reset_profile(self) -> None:
        self._core.reset_profile()


def _tuple(op: Op, matrices: Mapping[str, int], vectors: Mapping[str, int]) -> tuple[object, ...]:
    weights = [matrices[name] for name in op.weights]
    return (
        KINDS[op.kind],
        list(op.inputs),
        list(op.outputs),
        weights,
        [vectors[v] if v else -1 for v in op.vectors],
        list(op.ints),
        list(op.floats),
    )
