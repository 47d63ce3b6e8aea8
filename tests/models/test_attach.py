"""Side-cars make the same network another way: every kind, with biases and without, alone and mixed."""

import numpy as np
import pytest
from numpy_network import LLAMA, QWEN2, SEED, interpret, network

from scrimp.engine import Engine
from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.models.attach import attach
from scrimp.models.sidecars import Rotation, eligible, owner, rotations
from scrimp.program import Program
from scrimp.quantize.quip import turn
from scrimp.tensors import encode, from_floats

TOKENS = np.random.default_rng(2).integers(0, 24, 20).astype(np.int32)
LAYER = "model.layers.1."
ATTENTION, FFN = f"{LAYER}self_attn.", f"{LAYER}mlp."


def rotated(program, weights, matrices):
    """The network with ``matrices`` rotated, and their side-cars."""
    found = dict(weights)
    for name, rotation in rotations(program, matrices, SEED).items():
        found[name] = turn(weights[name].astype(np.float64), rotation)
        found[f"{name}.rotation"] = np.array(rotation.values, np.float32)
    return found


def ranked(program, weights, matrices, rank=3):
    """The network with a part of each matrix moved into a product of rank 3."""
    rng, found = np.random.default_rng(9), dict(weights)
    for name in matrices:
        rows, cols = program.matrices[name]
        b, a = rng.normal(size=(rows, rank)).astype(np.float32), rng.normal(size=(rank, cols)).astype(np.float32)
        found |= {name: weights[name] - b.astype(np.float64) @ a, f"{name}.lowrank_a": a, f"{name}.lowrank_b": b}
    return found


def selected(program, weights, matrices, channels=(1, 5, 6)):
    """The network with some columns of each matrix moved beside it; what is left there is garbage."""
    found = dict(weights)
    for name in matrices:
        rest = weights[name].copy()
        rest[:, channels] = 1e3
        found |= {name: rest, f"{name}.outliers": weights[name][:, channels],
                  f"{name}.channels": np.array(channels, np.float32)}  # fmt: skip
    return found


def attached(program, weights):
    return attach(program, {name: values.shape for name, values in weights.items()}, lambda name: weights[name])


def mixed(program, weights, matrices):
    """A third of the matrices each way."""
    found = rotated(program, weights, matrices[::3])
    found = ranked(program, found, matrices[1::3])
    return selected(program, found, matrices[2::3])


WAYS = {"rotated": rotated, "ranked": ranked, "selected": selected, "mixed": mixed}


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
@pytest.mark.parametrize("way", WAYS)
def test_the_rewritten_network_is_the_same(config, way):
    program, weights = network(config)
    moved = WAYS[way](program, weights, sorted(eligible(program)))
    rewritten = attached(program, moved)
    assert len(rewritten.ops) > len(program.ops)
    exact = interpret(program, weights, TOKENS)
    error = np.abs(interpret(rewritten, moved, TOKENS) - exact).max()
    # turn() rounds a rotated matrix to float32 once: less than calculating in float32 does. All else is float64.
    noise = np.abs(interpret(program, weights, TOKENS, np.float32) - exact).max()
    assert error <= (noise if way in ("rotated", "mixed") else 1e-6 * noise)


@pytest.mark.parametrize("config", [LLAMA, QWEN2], ids=["llama", "qwen2"])
@pytest.mark.parametrize("way", WAYS)
def test_the_engine_runs_what_the_interpreter_runs(config, way, isa):
    """Within sixteen times what another order of summing in float32 makes of it."""
    program, weights = network(config)
    moved = WAYS[way](program, weights, sorted(eligible(program)))
    moved = {name: np.asarray(values, np.float32) for name, values in moved.items()}
    rewritten = attached(program, moved)
    exact = interpret(rewritten, moved, TOKENS)
    noise = np.abs(interpret(rewritten, moved, TOKENS, np.float32) - exact).max()
    matrices = {name: from_floats(parse("f32"), moved[name]) for name in rewritten.matrices}
    vectors = {name: moved[name] for name in rewritten.vectors}
    engine = Engine(rewritten, matrices, vectors, context=64, threads=2, isa=isa, arithmetic="f32")
    assert np.abs(engine.forward(TOKENS, 0, all_logits=True) - exact).max() <= 16 * noise
    one_by_one = [engine.forward(TOKENS[at : at + 1], at)[0] for at in range(len(TOKENS))]
    assert np.abs(np.array(one_by_one) - exact).max() <= 16 * noise


def kinds(program):
    return [op.kind for op in program.ops]


def test_what_reads_one_buffer_shares_its_rotation_and_its_product():
    program, weights = network(LLAMA)
    found = attached(program, rotated(program, weights, sorted(eligible(program))))
    # in each layer: inputs of q k v, of gate and up, of down; outputs of q, k, o, gate, up, down; v and o meet for free
    assert kinds(found).count("hadamard") == 2 * (3 + 6)
    assert kinds(found).count("linear") == kinds(program).count("linear")


def test_values_with_a_bias_are_not_left_rotated():
    program, weights = network(QWEN2)
    found = attached(program, rotated(program, weights, sorted(eligible(program))))
    assert kinds(found).count("hadamard") == 2 * (4 + 7)


def test_without_the_output_matrix_the_values_are_rotated_as_a_whole():
    program, _ = network(LLAMA)
    some = sorted(name for name in eligible(program) if "o_proj" not in name)
    assert set(rotations(program, some, SEED).values()) == {Rotation(SEED)}
    found = rotations(program, [*some, f"{ATTENTION}o_proj.weight"], SEED)
    assert found[f"{ATTENTION}v_proj.weight"] == Rotation(SEED, 1, 2)
    assert found[f"{ATTENTION}o_proj.weight"] == Rotation(SEED, 4, 1)


@pytest.mark.parametrize("output", [Rotation(SEED, 2, 1), Rotation(SEED, 1, 1), Rotation(SEED + 1, 4, 1)], ids=str)
def test_rotations_that_do_not_meet_are_each_undone(output):
    """Values rotated by the head, and an output matrix that expects other stretches, or other signs."""
    program, weights = network(LLAMA)
    value, after = f"{ATTENTION}v_proj.weight", f"{ATTENTION}o_proj.weight"
    moved = dict(weights)
    for name, rotation in ((value, Rotation(SEED, 1, 2)), (after, output)):
        moved |= {name: turn(weights[name], rotation), f"{name}.rotation": np.array(rotation.values, np.float32)}
    rewritten = attached(program, moved)
    assert kinds(rewritten).count("hadamard") == 4
    if output.seed == SEED:  # the only one that the interpreter knows
        exact = interpret(program, weights, TOKENS)
        noise = np.abs(interpret(program, weights, TOKENS, np.float32) - exact).max()
        assert np.abs(interpret(rewritten, moved, TOKENS) - exact).max() <= noise


def test_channels_are_selected_once_for_all_that_agree():
    program, weights = network(LLAMA)
    found = attached(program, selected(program, weights, sorted(eligible(program))))
    assert kinds(found).count("select") == 2 * 4
    other = selected(program, weights, [f"{ATTENTION}q_proj.weight"], (0, 2))
    other = selected(program, other, [f"{ATTENTION}k_proj.weight"], (0, 3))
    assert kinds(attached(program, other)).count("select") == 2


def test_a_network_without_side_cars_is_left_alone():
    program, weights = network(LLAMA)
    assert attached(program, weights) is program


def test_the_rewritten_program_keeps_the_buffers_of_the_plain_one():
    program, weights = network(LLAMA)
    before = list(program.widths), list(program.ops)
    found = attached(program, rotated(program, weights, sorted(eligible(program))))
    assert found.widths[: len(program.widths)] == program.widths
    assert found.output == program.output
    assert (program.widths, program.ops) == before


def test_heads_and_embeddings_can_have_no_side_car():
    for config in (LLAMA, QWEN2):
        program, _ = network(config)
        assert not {"model.embed_tokens.weight", "lm_head.weight"} & eligible(program)
        assert len(eligible(program)) == 14


Q = f"{ATTENTION}q_proj.weight"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({f"{Q}.rotation": np.float32([1, 1])}, r"rotation has shape \[2\]; here it must be \[3\]"),
        ({f"{Q}.rotation": np.float32([1.5, 1, 1])}, "no integers"),
        ({f"{Q}.rotation": np.float32([np.nan, 1, 1])}, "no integers"),
        ({f"{Q}.rotation": np.float32([1, -1, 1])}, "no integers"),
        ({f"{Q}.rotation": np.float32([1, 0, 1])}, "into 1 and 0 parts"),
        ({f"{Q}.rotation": np.float32([1, 3, 1])}, "into 1 and 3 parts"),
        ({f"{Q}.lowrank_a": np.zeros((2, 40))}, "lowrank_a do not make a whole"),
        ({f"{Q}.lowrank_a": np.zeros((2, 40)), f"{Q}.lowrank_b": np.zeros((48, 3))}, r"lowrank_a has shape \[2, 40\]"),
        ({f"{Q}.lowrank_a": np.zeros((2, 40)), f"{Q}.lowrank_b": np.zeros((47, 2))}, r"lowrank_b has shape \[47, 2\]"),
        ({f"{Q}.lowrank_a": np.zeros((2, 41)), f"{Q}.lowrank_b": np.zeros((48, 2))}, r"lowrank_a has shape \[2, 41\]"),
        ({f"{Q}.outliers": np.zeros((48, 2)), f"{Q}.channels": np.float32([0, 40])}, "no integers from 0 to 39"),
        ({f"{Q}.outliers": np.zeros((48, 2)), f"{Q}.channels": np.float32([3, 3])}, "do not ascend"),
        ({f"{Q}.outliers": np.zeros((48, 2)), f"{Q}.channels": np.float32([3])}, r"channels has shape \[1\]"),
        ({f"{Q}.outliers": np.zeros((48, 2)), f"{Q}.rotation": np.float32([1, 1, 1])}, "do not make a whole"),
        ({"lm_head.weight.rotation": np.float32([1, 1, 1])}, "lm_head.weight.rotation stands beside no matrix"),
        ({"model.norm.weight.rotation": np.float32([1, 1, 1])}, "stands beside no matrix"),
        ({"nothing.rotation": np.float32([1, 1, 1])}, "nothing.rotation stands beside no matrix"),
    ],
)  # fmt: skip
def test_side_cars_that_fit_nothing_are_refused_by_name(tensors, says):
    program, weights = network(LLAMA)
    with pytest.raises(Refused, match=says):
        attached(program, weights | tensors)


def test_owners_are_told_by_the_suffix():
    assert owner(f"{Q}.channels") == Q
    assert owner(Q) is None
    assert owner("rotation.weight") is None


def test_outlier_channels_meet_float_activations_in_int8_too(isa):
    """Of one product with inputs a thousand times as strong in two channels: what is beside errs no more than f16 does,
    and what is left is quantized as if these channels were zero."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(32, 96)).astype(np.float32), rng.normal(size=(5, 96)).astype(np.float32)
    x[:, [7, 40]] *= 1000
    plain = Program({"table": (1, 96), "w": (32, 96)}, {})
    start = plain.embed("table")  # never run: it only makes the buffer
    (out,) = plain.linear(start, "w")
    plain.output = plain.embed("table").index  # nor this
    rest = weight.copy()
    rest[:, [7, 40]] = 0
    beside = {"w.outliers": weight[:, [7, 40]], "w.channels": np.float32([7, 40])}
    program = attach(plain, {name: values.shape for name, values in beside.items()}, beside.__getitem__)
    f32, int8, f16 = parse("f32"), parse("int8:g32"), parse("f16")
    table = from_floats(f32, np.zeros((1, 96), np.float32))
    found = []
    for ops, held in ((plain, encode(weight, int8)), (program, encode(rest, int8))):
        matrices = {"table": table, "w": held}
        if ops is program:
            matrices["w.outliers"] = encode(beside["w.outliers"], f16)
        engine = Engine(ops, matrices, {}, context=8, threads=1, isa=isa, chunk=5)
        last = len(ops.ops) - 1
        found.append(engine.run(np.zeros(5, np.int32), 0, 1, last, inputs={start.index: x}, outputs=[out.index]))
    errors = [np.abs(values[out.index] - x.astype(np.float64) @ weight.T) for values in found]
    quiet = np.delete(np.abs(x), [7, 40], axis=1).astype(np.float64)
    loud = np.abs(x[:, [7, 40]]).astype(np.float64) @ np.abs(weight[:, [7, 40]]).T
    step = np.abs(weight).max() / 127  # of a weight; of an activation as much of the largest quiet one
    bound = 2.0**-10 * loud + quiet.sum(axis=1, keepdims=True) * step + 94 * quiet.max() / 127 * np.abs(weight).max()
    assert np.all(errors[1] <= bound)
    assert errors[0].mean() > 20 * errors[1].mean()
