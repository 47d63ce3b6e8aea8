"""The logits of the tensors that a compression made, before they are a store: what the reopened store must repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from scrimp import models
from scrimp.calibrate.split import STAND_IN, Block, split
from scrimp.engine import Engine, default_threads, pick_isa
from scrimp.engine.float_path import as_run
from scrimp.formats import parse
from scrimp.program import Op, Program
from scrimp.tensors import F32, QTensor, from_floats

#: Tokens that both sides run, spread over the vocabulary.
TOKENS = 8


def tokens_of(vocabulary: int, context: int) -> list[int]:
    """Ids from the first to the last.

    >>> tokens_of(22, 4)
    [0, 7, 14, 21]
    """
    return [int(token) for token in np.linspace(0, vocabulary - 1, min(TOKENS, context, vocabulary))]


def logits_as_made(
    config: dict[str, Any], matrix: Callable[[str], QTensor], vector: Callable[[str], F32]
) -> tuple[list[int], F32]:
    """Token ids and their logits ``(T, V)``, one block in memory at a time, in the arithmetic that a user runs."""
    parsed, program = models.build(config)
    blocks = split(program)
    tokens = tokens_of(program.widths[program.output], parsed.context)
    state: F32 | None = None
    for block in blocks:
        state = _through(block, tokens, state, matrix, vector)
    assert state is not None
    head = program.ops[-1]
    assert head.kind == "linear", "logits come from a product"
    last = Program({STAND_IN: state.shape, head.weights[0]: program.matrices[head.weights[0]]},
                   {name: program.vectors[name] for name in head.vectors if name})  # fmt: skip
    last.widths, last.output = [state.shape[1], program.widths[program.output]], 1
    last.ops = [Op("embed", (), (0,), (STAND_IN,)), Op("linear", (0,), (1,), head.weights, head.vectors, head.ints)]
    matrices = {STAND_IN: from_floats(parse("f32"), state), head.weights[0]: as_run(matrix(head.weights[0]))}
    engine = _engine(last, matrices, {name: vector(name) for name in last.vectors}, len(tokens))
    return tokens, engine.forward(range(len(tokens)), 0, all_logits=True)


def _through(
    block: Block, tokens: list[int], state: F32 | None, matrix: Callable[[str], QTensor], vector: Callable[[str], F32]
) -> F32:
    """The state after a block; after the last one, what the head multiplies with."""
    matrices = {name: as_run(matrix(name)) for name in block.runs}
    if block.first:
        matrices[STAND_IN] = from_floats(parse("f32"), np.zeros(block.program.matrices[STAND_IN], np.float32))
    engine = _engine(block.program, matrices, {name: vector(name) for name in block.program.vectors}, len(tokens))
    leaves = block.output if not block.is_last else block.program.ops[-1].outputs[0]
    given = {} if state is None else {0: state}
    ids = np.zeros(len(tokens), np.int32) if block.first else np.asarray(tokens, np.int32)
    return engine.run(ids, 0, block.first, len(block.program.ops), inputs=given, outputs=[leaves])[leaves]


def _engine(program: Program, matrices: dict[str, QTensor], vectors: dict[str, F32], length: int) -> Engine:
    return Engine(program, matrices, vectors, context=length, threads=default_threads(), isa=pick_isa())
