"""The logits of the tensors that a compression made, before they are a store: what the reopened store must repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

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


def logits_as_made(program: Program, context: int, read: Callable[[str], QTensor | F32]) -> tuple[list[int], F32]:
    """Token ids and their logits ``(T, V)``, one block in memory at a time, in the arithmetic that a user runs.

    ``read`` returns a tensor of the ``program`` as it was made.
    """
    tokens = tokens_of(program.matrices[program.ops[0].weights[0]][0], context)
    state: F32 | None = None
    for block in split(program):
        state = _through(block, tokens, state, read)
    assert state is not None
    return tokens, state if program.head is None else _head(program, state, read)


def _through(block: Block, tokens: list[int], state: F32 | None, read: Callable[[str], QTensor | F32]) -> F32:
    """The state after a block; after the last one, what the head multiplies with."""
    beside = {}
    if block.first:
        beside[STAND_IN] = from_floats(parse("f32"), np.zeros(block.program.matrices[STAND_IN], np.float32))
    engine = _engine(block.program, read, beside, len(tokens))
    leaves = block.output if not block.is_last else block.program.ops[-1].outputs[0]
    given = {} if state is None else {0: state}
    ids = np.zeros(len(tokens), np.int32) if block.first else np.asarray(tokens, np.int32)
    return engine.run(ids, 0, block.first, len(block.program.ops), inputs=given, outputs=[leaves])[leaves]


def _head(program: Program, state: F32, read: Callable[[str], QTensor | F32]) -> F32:
    """The product that makes the logits, of states that stand in for an embedding."""
    head = program.head
    assert head is not None
    after = [replace(op, inputs=(1,), outputs=(1,)) for op in program.ops[program.ops.index(head) + 1 :]]
    last = Program({STAND_IN: (len(state), state.shape[1]), head.weights[0]: program.matrices[head.weights[0]]},
                   {name: program.vectors[name] for name in head.vectors if name})  # fmt: skip
    last.widths, last.output = [state.shape[1], program.widths[program.output]], 1
    last.ops = [
        Op("embed", (), (0,), (STAND_IN,), ints=(0,), floats=(1.0,)),
        Op("linear", (0,), (1,), head.weights, head.vectors, head.ints),
        *after,
    ]
    engine = _engine(last, read, {STAND_IN: from_floats(parse("f32"), state)}, len(state))
    return engine.forward(range(len(state)), 0, all_logits=True)


def _engine(program: Program, read: Callable[[str], QTensor | F32], beside: dict[str, QTensor], length: int) -> Engine:
    matrices, vectors = dict(beside), {}
    for name in program.matrices:
        if name not in beside:
            tensor = read(name)
            assert isinstance(tensor, QTensor), name
            matrices[name] = as_run(tensor)
    for name in program.vectors:
        tensor = read(name)
        assert not isinstance(tensor, QTensor), name
        vectors[name] = tensor
    return Engine(program, matrices, vectors, context=length, threads=default_threads(), isa=pick_isa())
