"""The executor: slices, taps, chunks, threads, and calls that it must refuse. Networks are tiny and random."""

import numpy as np
import pytest
from tiny_network import CONFIG, tiny_engine

from scrimp import models
from scrimp.engine import pick_isa
from scrimp.errors import UsageError
from scrimp.program import IN_PLACE, offsets

TOKENS = np.random.default_rng(2).integers(0, 97, 60).astype(np.int32)


def test_the_last_row_equals_the_last_of_all_rows():
    engine = tiny_engine()
    every = engine.forward(TOKENS, 0, all_logits=True)
    assert np.array_equal(engine.forward(TOKENS, 0), every[-1:])


def test_thread_count_does_not_change_a_bit():
    one = tiny_engine(threads=1)
    for threads in (2, 3, 5):
        many = tiny_engine(threads=threads)
        assert np.array_equal(one.forward(TOKENS, 0, all_logits=True), many.forward(TOKENS, 0, all_logits=True))
        assert np.array_equal(one.forward(TOKENS[:1], 60), many.forward(TOKENS[:1], 60))


def test_a_slice_given_its_inputs_continues_the_whole(isa):
    """Running a block from tapped inputs gives the tapped outputs: what calibration block by block relies on."""
    engine = tiny_engine(isa=isa)
    ops = engine.program.ops
    cut = next(i for i, op in enumerate(ops) if op.kind == "add" and i > 5) + 1  # the middle of block 0
    middle, last = ops[cut - 1].outputs[0], ops[-2].outputs[0]
    whole = engine.run(TOKENS, 0, 0, len(ops), outputs=[middle, last])
    engine.run(TOKENS, 0, 0, cut)
    again = engine.run(TOKENS, 0, cut, len(ops) - 1, inputs={middle: whole[middle]}, outputs=[last])
    assert np.array_equal(again[last], whole[last])
    assert np.abs(whole[last]).max() > 0


def test_a_tap_sees_the_buffer_before_its_place_is_used_again():
    engine = tiny_engine()
    ops = engine.program.ops
    every = [op.outputs[0] for op in ops[:-1]]
    together = engine.run(TOKENS[:8], 0, 0, len(ops), outputs=every)
    for at in (0, 3, len(ops) // 2, len(ops) - 2):
        alone = engine.run(TOKENS[:8], 0, 0, len(ops), outputs=[ops[at].outputs[0]])
        assert np.array_equal(alone[ops[at].outputs[0]], together[ops[at].outputs[0]])


def test_buffers_alive_together_never_overlap():
    _, program = models.build(CONFIG)
    places, width = offsets(program)
    last_use = {b: i for i, op in enumerate(program.ops) for b in (*op.inputs, *op.outputs)}
    born = {b: i for i, op in enumerate(program.ops) for b in op.outputs}
    buffers = [b for b in born if b != program.output]

    def follows(later, earlier):  # made of it, and the last that is
        op = program.ops[born[later]]
        return earlier in op.inputs and op.kind in IN_PLACE and last_use[earlier] == born[later]

    for a in buffers:
        assert places[a] % 16 == 0
        assert places[a] + program.widths[a] <= width
        for b in buffers:
            together = born[a] <= last_use[b] and born[b] <= last_use[a]
            apart = places[a] + program.widths[a] <= places[b] or places[b] + program.widths[b] <= places[a]
            assert a == b or not together or apart or (places[a] == places[b] and (follows(a, b) or follows(b, a)))
    assert any(op.kind == "activation" and places[op.inputs[0]] == places[op.outputs[0]] for op in program.ops)


@pytest.mark.parametrize("tokens", [1, 8, 60])
def test_what_lies_where_an_input_did_has_the_same_bits_as_apart(tokens, monkeypatch):
    together = tiny_engine().forward(TOKENS[:tokens], 0, all_logits=True)
    monkeypatch.setattr("scrimp.program.IN_PLACE", frozenset())
    assert np.array_equal(tiny_engine().forward(TOKENS[:tokens], 0, all_logits=True), together)


def test_the_profile_counts_every_operation():
    engine = tiny_engine()
    engine.forward(TOKENS, 0)
    times = engine.profile()
    assert len(times) == len(engine.program.ops)
    assert all(t.calls == 1 and t.seconds >= 0 for t in times)
    assert sum(t.seconds for t in times) > 0
    engine.reset_profile()
    assert sum(t.seconds for t in engine.profile()) == 0


@pytest.mark.parametrize(
    ("tokens", "start", "message"),
    [([97], 0, "a token is out of range"), ([-1], 0, "a token is out of range"),
     ([1], 300, "positions exceed the context"),
     ([1] * 10, 295, "positions exceed the context"), ([1], -1, "positions exceed the context")],
)  # fmt: skip
def test_what_would_leave_the_cache_is_refused(tokens, start, message):
    with pytest.raises(ValueError, match=message):
        tiny_engine().forward(tokens, start)


def test_an_unknown_instruction_set_is_refused_with_the_ones_there_are():
    with pytest.raises(UsageError, match="'avx9000' is not available here"):
        pick_isa("avx9000")


def test_scrimp_isa_chooses(monkeypatch):
    monkeypatch.setenv("SCRIMP_ISA", "scalar")
    assert pick_isa() == "scalar"
    monkeypatch.setenv("SCRIMP_ISA", "altivec")
    with pytest.raises(UsageError):
        pick_isa()
