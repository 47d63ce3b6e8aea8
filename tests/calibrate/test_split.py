"""Blocks come from what is alive between operations, and together they are the whole network."""

import pytest
from networks import CONFIG

from scrimp import models
from scrimp.calibrate.split import STAND_IN, split
from scrimp.program import Program

CASES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
}


@pytest.fixture(params=CASES, ids=str)
def program(request):
    return models.build({**CONFIG, **CASES[request.param]})[1]


def test_a_layer_is_two_blocks_between_an_embedding_and_a_head(program):
    kinds = [[op.kind for op in block.program.ops[block.first :]] for block in split(program)]
    attention = ["rms_norm", "linear", "rope", "rope", "attention", "linear", "add"]
    ffn = ["rms_norm", "linear", "activation", "linear", "add"]
    assert kinds == [["embed"], *[attention, ffn] * CONFIG["num_hidden_layers"], ["rms_norm"]]


def test_every_matrix_and_vector_is_in_the_block_that_uses_it(program):
    blocks = split(program)
    used = [name for block in blocks for name in block.matrices]
    assert set(used) == set(program.matrices)
    tied = len(used) - len(set(used))
    assert tied == (1 if "lm_head.weight" not in program.matrices else 0)
    assert sorted(name for block in blocks for name in block.program.vectors) == sorted(program.vectors)


def test_every_matrix_that_multiplies_knows_what_it_reads(program):
    blocks = split(program)
    multiplies = {name for op in program.ops if op.kind == "linear" for name in op.weights}
    assert {name for block in blocks for name in block.reads} == multiplies
    first = blocks[1]
    assert len({first.reads[f"model.layers.0.self_attn.{n}_proj.weight"] for n in "qkv"}) == 1
    for block in blocks:
        for name, buffer in block.reads.items():
            assert block.program.widths[buffer] == program.matrices[name][1]


def test_only_the_first_block_embeds_and_only_the_last_has_no_output(program):
    blocks = split(program)
    assert [block.first for block in blocks] == [0] + [1] * (len(blocks) - 1)
    assert [block.is_last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(block.runs == block.matrices for block in blocks[:-1])
    assert blocks[-1].runs == ()
    assert all(STAND_IN in block.program.matrices for block in blocks[1:])


def test_a_network_without_residual_stream_is_cut_at_every_product():
    p = Program({"a": (4, 3), "b": (5, 3), "c": (6, 5)}, {})
    (hidden,) = p.linear(p.embed("a"), "b")
    (logits,) = p.linear(hidden, "c")
    p.output = logits.index
    blocks = split(p)
    assert [block.matrices for block in blocks] == [("a",), ("b",), ("c",)]
    assert [block.output for block in blocks] == [0, 1, -1]
