"""Statistics of the walk against NumPy on taps of the whole network, and against transformers' own inputs."""

import json

import numpy as np
import pytest
from networks import CONFIG, write_network

from scrimp import models
from scrimp.calibrate import states as held
from scrimp.calibrate.accumulate import ROWS_AT_ONCE, TOKENS_AT_ONCE, Accumulator
from scrimp.calibrate.split import split
from scrimp.calibrate.walk import Walk
from scrimp.errors import Refused, ScrimpError
from scrimp.model import Model
from scrimp.sources import open_source

WINDOWS = np.random.default_rng(0).integers(0, 50, (5, 32)).astype(np.int32)
CASES = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen2, tied": {"model_type": "qwen2", "tie_word_embeddings": True},
}


@pytest.fixture(params=CASES, ids=str)
def source(request, tmp_path):
    with open_source(write_network(tmp_path / "network", **CASES[request.param])) as found:
        yield found


def walked(source, **options):
    """Statistics of every matrix with the weights of the source."""
    _, program = models.build(source.config)
    vectors = {name: source.read(name) for name in program.vectors}
    walk, found = Walk(WINDOWS, **options), {}
    for block in split(program):
        found |= walk.run(block, {n: source.read(n) for n in block.runs}, vectors, collect=True, move=True)
    return found


def whole_inputs(source, arithmetic="int8"):
    """Every matrix → its inputs ``(T, K)`` in float64, tapped from the whole network."""
    model = Model(source, arithmetic=arithmetic, context=32, kv="f32")
    linears = [op for op in model.program.ops if op.kind == "linear"]
    taps = [
        model.engine.run(window, 0, 0, len(model.program.ops), outputs=[op.inputs[0] for op in linears])
        for window in WINDOWS
    ]
    return {
        name: np.concatenate([tap[op.inputs[0]] for tap in taps]).astype(np.float64)
        for op in linears
        for name in op.weights
    }


def assert_describes(statistics, x, tolerance):
    assert statistics.count == len(x)
    bound = tolerance * (np.abs(x).T @ np.abs(x))
    assert (np.abs(statistics.moments - x.T @ x) <= bound + 1e-12).all()
    assert np.allclose(statistics.mean, x.mean(axis=0), rtol=1e-5, atol=tolerance * np.abs(x).max())
    assert np.allclose(statistics.magnitude, np.abs(x).mean(axis=0), rtol=1e-5, atol=tolerance)
    assert np.allclose(statistics.peak, np.abs(x).max(axis=0), rtol=tolerance)


def test_block_by_block_equals_the_whole_network(source):
    found, inputs = walked(source), whole_inputs(source, "f32")
    assert set(found) == set(inputs)
    for name, x in inputs.items():
        assert_describes(found[name], x, TOKENS_AT_ONCE * 2**-24)


def test_matrices_with_one_input_share_one_object(source):
    found = walked(source)
    q, k, v = (found[f"model.layers.1.self_attn.{n}_proj.weight"] for n in "qkv")
    assert q is k is v
    assert found["model.layers.1.mlp.gate_proj.weight"] is found["model.layers.1.mlp.up_proj.weight"]
    assert found["model.layers.1.mlp.down_proj.weight"] is not q


def test_the_embedding_has_statistics_only_where_it_is_the_head_too(source):
    assert ("model.embed_tokens.weight" in walked(source)) == source.config["tie_word_embeddings"]


def test_the_same_windows_give_the_same_bits(source):
    first, again = walked(source), walked(source)
    for name, one in first.items():
        other = again[name]
        assert np.array_equal(one.moments, other.moments)
        assert np.array_equal(one.moments, one.moments.T)
        for field in ("mean", "magnitude", "peak"):
            assert np.array_equal(getattr(one, field), getattr(other, field))


def test_states_in_a_file_change_no_bit_and_leave_nothing(source, tmp_path, monkeypatch):
    in_memory = walked(source)
    monkeypatch.setattr(held, "MEMORY_BYTES", 0)
    there = tmp_path / "spill"
    there.mkdir()
    assert isinstance(held.hold((2, 3, 4), there), np.memmap)
    spilled = walked(source, directory=there)
    assert all(np.array_equal(one.moments, spilled[name].moments) for name, one in in_memory.items())
    assert list(there.iterdir()) == []


def test_a_disk_without_room_is_said_before_anything_runs(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held.os, "posix_fallocate", full)
    with pytest.raises(ScrimpError, match=r"hidden states of 2 windows need .*No space left"):
        held.hold((2, 3, 4), tmp_path, limit_bytes=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [5, ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 3])
@pytest.mark.parametrize("lengths", [(1,), (700, 700), (2 * TOKENS_AT_ONCE + 1, 3), (TOKENS_AT_ONCE,) * 2])
def test_rows_add_up_however_they_come(width, lengths):
    x = np.random.default_rng(width).normal(0.3, 1, (sum(lengths), width)).astype(np.float32)
    total, at = Accumulator(width), 0
    for length in lengths:
        total.add(x[at : at + length])
        at += length
    found = total.statistics("layer")
    assert_describes(found, x.astype(np.float64), TOKENS_AT_ONCE * 2**-24)
    assert np.array_equal(found.moments, found.moments.T)


def test_inputs_that_are_not_finite_are_refused_by_name():
    total = Accumulator(2)
    total.add(np.array([[1.0, np.inf]], np.float32))
    with pytest.raises(Refused, match="layer: its inputs are not finite"):
        total.statistics("layer")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_statistics_equal_those_of_transformers(case, tmp_path):
    """Independent code, from the reading of the file to the inputs of its layers."""
    torch = pytest.importorskip("torch", reason="torch is the oracle")
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    path = write_network(tmp_path / "network", **CASES[case])
    if CASES[case].get("model_type") == "qwen2":
        config = json.loads((path / "config.json").read_text()) | {"architectures": ["Qwen2ForCausalLM"]}
        (path / "config.json").write_text(json.dumps(config))
    network = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    seen: dict[str, list] = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(
                lambda _, given, name=name: seen.setdefault(f"{name}.weight", []).append(given[0].numpy())
            )
    with torch.no_grad():
        network(torch.tensor(WINDOWS, dtype=torch.long))
    tied = CASES[case].get("tie_word_embeddings")
    with open_source(path) as source:
        found = walked(source)
    if tied:
        seen["model.embed_tokens.weight"] = seen.pop("lm_head.weight")
    assert set(seen) == set(found)
    for name, inputs in seen.items():
        assert_describes(found[name], np.concatenate(inputs).reshape(-1, inputs[0].shape[-1]).astype(float), 1e-3)
    assert len(found) == 7 * CONFIG["num_hidden_layers"] + 1
