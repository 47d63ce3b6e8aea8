"""The joint prefix: what two sets of states give, the closed form, and that outputs come nearer to the original's."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from networks import WORDS, write_network

from scrimp import models
from scrimp.calibrate import states, walk
from scrimp.calibrate.joint import measure, writer
from scrimp.calibrate.split import split
from scrimp.calibrate.statistics import Statistics
from scrimp.calibrate.walk import Walk
from scrimp.model import Model
from scrimp.quantize import apply, predict_walk
from scrimp.quantize.compress import compress, run
from scrimp.quantize.corrected import corrected, solved
from scrimp.quantize.decoded import decode
from scrimp.quantize.fold import divided_statistics
from scrimp.quantize.job import prepare
from scrimp.quantize.predict_walk import walk_cost
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store.partial import Partial

HOW = {"format": "int2z:g32", "method": "gptq", "calibrate_windows": 5}


def blocks_of(source):
    return split(models.build(source.config)[1])


def states_after(source, windows, blocks, matrices):
    """The residual stream before each block, ``(windows · T, width)``, from a whole network."""
    vectors = {name: source.read(name) for name in source.tensors if len(source.tensors[name].shape) == 1}
    through, found = Walk(windows), []
    for block in blocks:
        found.append(None if through.states is None else through.states.reshape(-1, through.states.shape[-1]).copy())
        through.run(block, {name: matrices(name) for name in block.runs}, vectors, collect=False, move=True)
    return found


def inputs_of(block, states, source, windows):
    """What every matrix of a block reads from these states, in float64."""
    vectors = {name: source.read(name) for name in block.program.vectors}
    through, rows = Walk(windows), {name: [] for name in block.reads}
    through.states = states.reshape(*windows.shape, -1).copy()

    def watch(buffer, x):
        for name, read in block.reads.items():
            if read == buffer:
                rows[name].append(x.astype(np.float64))

    weights = {name: source.read(name) for name in block.runs}
    through.run(block, weights, vectors, collect=False, move=False, watch=watch)
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def test_cross_moments_are_those_of_both_networks(network, tmp_path, text):
    windows = np.random.default_rng(0).integers(0, 50, (5, 32)).astype(np.int32)
    compress(network, tmp_path / "small", format="int3:g32")
    with open_source(network) as source, open_source(tmp_path / "small") as small:
        blocks = blocks_of(source)
        exact = states_after(source, windows, blocks, source.read)
        found = states_after(source, windows, blocks, small.read)
        written = []
        for at, block in enumerate(blocks[1:], 1):
            original, quantized = Walk(windows), Walk(windows)
            original.states, quantized.states = (s[at].reshape(5, 32, -1).copy() for s in (exact, found))
            matrices = {name: source.read(name) for name in block.runs}
            vectors = {name: source.read(name) for name in block.program.vectors}
            measured = measure(original, quantized, block, matrices, vectors)
            assert np.array_equal(quantized.states.reshape(160, -1), found[at])
            if not block.is_last:
                assert np.array_equal(original.states.reshape(160, -1), exact[at + 1])
            x, instead = (inputs_of(block, states[at], source, windows) for states in (exact, found))
            for name, statistics in measured.items():
                bound = 1e-4 * (np.abs(x[name] - instead[name]).T @ np.abs(instead[name])) + 1e-6
                assert (np.abs(statistics.drift - (x[name] - instead[name]).T @ instead[name]) <= bound).all()
                assert statistics.count == 160
                assert (statistics.behind is not None) == (name == writer(block))
                if statistics.behind is not None:
                    written.append(name)
                    lacks = (exact[at] - found[at]).astype(np.float64)
                    bound = 1e-4 * (np.abs(lacks).T @ np.abs(instead[name])) + 1e-6
                    assert (np.abs(statistics.behind - lacks.T @ instead[name]) <= bound).all()
    ends = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
    assert written == [f"model.layers.{layer}.{end}" for layer in range(3) for end in ends]


def layer(seed, tokens=90, cols=24, rows=7):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, cols)).astype(np.float32)
    exact = rng.standard_normal((tokens, cols))
    found = exact + 0.3 * rng.standard_normal((tokens, cols)) + 0.2 * exact[:, ::-1]
    lacks = rng.standard_normal((tokens, rows))
    empty = np.zeros(cols, np.float32)
    statistics = Statistics(
        tokens, found.T @ found, empty, empty, empty, drift=(exact - found).T @ found, behind=lacks.T @ found
    )
    return weight, exact, found, lacks, statistics


@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_is_the_least_squares_solution(seed):
    weight, exact, found, lacks, statistics = layer(seed)
    for behind in (0.0, 1.0):
        target = exact @ weight.T + behind * lacks
        best = np.linalg.lstsq(found, target, rcond=None)[0].T
        ours = corrected(weight, statistics, drift=1.0, behind=behind, ridge=0.0)
        assert np.abs(ours - best).max() <= 2.0**-22 * np.abs(best).max()


@pytest.mark.parametrize("seed", range(4))
def test_any_rounding_errs_by_its_distance_from_the_corrected_weights(seed):
    weight, exact, found, lacks, statistics = layer(seed)
    best = np.linalg.lstsq(found, exact @ weight.T + lacks, rcond=None)[0].T
    rounded = np.round(2 * best) / 2

    def error(weights):
        return np.sum((found @ weights.T - exact @ weight.T - lacks) ** 2)

    apart = rounded - best
    assert np.trace(apart @ statistics.moments @ apart.T) == pytest.approx(error(rounded) - error(best))


@pytest.mark.parametrize("cols", [1, 63, 64, 65, 200])
def test_panels_solve_as_the_whole(cols):
    rng = np.random.default_rng(cols)
    x, right = rng.standard_normal((2 * cols + 1, cols)), rng.standard_normal((5, cols))
    moments = x.T @ x + np.eye(cols)
    found = solved(right, np.linalg.cholesky(moments))
    assert np.abs(found @ moments - right).max() <= 1e-11 * np.abs(right).max() * np.linalg.cond(moments)


def test_a_prefix_that_loses_nothing_corrects_nothing():
    weight, _, _, _, statistics = layer(0)
    zeros = np.zeros_like(statistics.drift)
    still = Statistics(1, statistics.moments, *[statistics.mean] * 3, drift=zeros)
    assert np.array_equal(corrected(weight, still), weight)
    dead = Statistics(1, zeros, *[statistics.mean] * 3, drift=zeros)
    assert np.array_equal(corrected(weight, dead), weight)
    plain = Statistics(1, statistics.moments, *[statistics.mean] * 3)
    assert corrected(weight, plain) is weight


def test_a_fold_changes_cross_moments_as_it_changes_the_inputs():
    weight, exact, found, lacks, statistics = layer(3)
    s = np.exp2(np.arange(24) % 5 - 2).astype(np.float32)  # exact
    folded = divided_statistics(statistics, s)
    assert np.array_equal(folded.drift, ((exact - found) / s).T @ (found / s))
    assert np.allclose(folded.behind, lacks.T @ (found / s), rtol=1e-12, atol=1e-12)
    one = corrected(weight * s, folded, drift=1.0, behind=1.0, ridge=0.0)
    assert np.allclose(one, corrected(weight, statistics, drift=1.0, behind=1.0, ridge=0.0) * s, rtol=1e-5, atol=1e-6)


def output_errors(network, out, text, prefix):
    """``‖(S + X Wᵀ) - (Ŝ + X̂ Ŵᵀ)‖`` of what every block leaves, on the calibration's own windows."""
    with (job := prepare(network, Wish(calibrate=text, calibrate_prefix=prefix, **HOW))).source as source:
        run(job, out)
        with open_source(out) as small:
            blocks, windows = blocks_of(source), job.calibration.windows
            exact, found = (states_after(source, windows, blocks, of.read) for of in (source, small))
    return [np.linalg.norm(x - y) for x, y in zip(exact[2:], found[2:], strict=True)]


def test_what_blocks_leave_comes_nearer_to_the_original(tmp_path, text):
    network = write_network(tmp_path / "network", hidden_size=32, intermediate_size=64)
    joint, quantized = (output_errors(network, tmp_path / name, text, name) for name in ("joint", "quantized"))
    assert joint[-1] < quantized[-1]
    assert sum(joint) < sum(quantized)


def test_the_loss_on_the_calibration_falls(tmp_path, text):
    network = write_network(tmp_path / "network", hidden_size=32, intermediate_size=64)
    errors = {}
    for prefix in ("joint", "quantized"):
        with (job := prepare(network, Wish(calibrate=text, calibrate_prefix=prefix, **HOW))).source as source:
            run(job, tmp_path / prefix)
            with open_source(tmp_path / prefix) as small:
                exact, found = (Model(of, arithmetic="f32", context=32) for of in (source, small))
                apart = [exact.logits(list(w)) - found.logits(list(w)) for w in job.calibration.windows]
        errors[prefix] = np.linalg.norm(np.concatenate(apart))
    assert errors["joint"] < errors["quantized"]


def test_only_methods_that_calibrate_are_corrected(network, tmp_path, text, monkeypatch):
    seen = []
    monkeypatch.setattr(apply, "corrected", lambda weight, statistics: seen.append(weight.shape) or weight)
    rules = ["*.down_proj.*=int8@rtn"]
    compress(network, tmp_path / "out", calibrate=text, calibrate_prefix="joint", rules=rules, **HOW)
    assert (64, 96) not in seen
    assert len(seen) == 3 * 6 + 1
    with open_source(network) as source, open_source(tmp_path / "out") as small:
        name = "model.layers.2.mlp.down_proj.weight"
        alone = compress(network, tmp_path / "alone", format="int8")
        with open_source(tmp_path / "alone") as rounded:
            assert np.array_equal(decode(small.read(name)), decode(rounded.read(name)))
        assert name in source.tensors
        assert alone.tensors


@pytest.mark.parametrize("method", ["gptq+refit", "awq+gptq", "quip+gptq", "gptq+swap"])
def test_every_kind_of_method_takes_corrected_weights(method, network, tmp_path, text):
    how = {**HOW, "method": method, "calibrate": text}
    first = compress(network, tmp_path / "joint", calibrate_prefix="joint", **how)
    assert all(np.isfinite(tensor.error) for tensor in first.tensors)
    compress(network, tmp_path / "quantized", calibrate_prefix="quantized", **how)
    joint, quantized = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("joint", "quantized"))
    assert joint != quantized


def test_the_report_tells_of_the_correction_and_the_prediction_of_its_memory(network, tmp_path, text):
    memory = {}
    for prefix in ("joint", "quantized"):
        with (job := prepare(network, Wish(calibrate=text, calibrate_prefix=prefix, **HOW))).source:
            told = walk_cost(job.source, job.plan, job.calibration)
            memory[prefix] = told.memory_bytes
            assert told.seconds > 0
            assert any("make up for what is lost" in note for note in job.notes) == (prefix == "joint")
    states, widest = 5 * 32 * 64 * 4, 8 * (64**2 + 96**2)
    rows = 4 * 8 * 64 * 96  # that are corrected at a time
    assert memory["joint"] - memory["quantized"] == states + widest + rows


@pytest.mark.parametrize(("method", "more"), [("gptq", 0), ("quip+gptq", 8), ("awq+gptq", 16)])
def test_the_prediction_counts_what_is_made_of_the_moments(method, more, network, text):
    with (job := prepare(network, Wish(calibrate=text, **{**HOW, "method": method}))).source:
        found = predict_walk._made_of_moments(job.plan, 2)
    assert found == (8 + 4 + more) * 96**2 + 4 * 8 * 64 * 96


def test_both_sets_of_states_go_to_the_disk_where_they_are_large(network, tmp_path, text, monkeypatch):
    how = {**HOW, "calibrate": text, "calibrate_prefix": "joint"}
    compress(network, tmp_path / "memory", **how)
    made, real = [], states.hold
    monkeypatch.setattr(states, "MEMORY_BYTES", 0)
    monkeypatch.setattr(walk, "hold", lambda *given: made.append(real(*given)) or made[-1])
    compress(network, tmp_path / "disk", **how)
    assert len(made) == 2
    assert all(isinstance(held, np.memmap) for held in made)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("memory", "disk"))
    assert first == second


@pytest.mark.parametrize("finished", [3, 12, 27])
def test_an_interrupted_joint_walk_ends_in_the_same_bytes(finished, network, tmp_path, text, monkeypatch):
    how = {**HOW, "calibrate": text, "calibrate_prefix": "joint"}
    compress(network, tmp_path / "straight", **how)
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == finished:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(Partial, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(network, tmp_path / "out", **how)
    monkeypatch.setattr(Partial, "write", write)
    assert compress(network, tmp_path / "out", **how).resumed == finished
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "out"))
    assert first == second


CALL = """
import sys, scrimp
from pathlib import Path
network, out, text = sys.argv[1:]
scrimp.compress(network, out, format="int3:g64", method="gptq", calibrate=Path(text), calibrate_windows=3,
                calibrate_prefix="joint")
"""


def test_threads_change_no_bit_of_a_joint_walk(tmp_path):
    sides = {"hidden_size": 192, "intermediate_size": 640, "num_hidden_layers": 2, "max_position_embeddings": 128}
    network, text, found = write_network(tmp_path / "network", **sides), tmp_path / "text.txt", set()
    text.write_text(" ".join(np.random.default_rng(2).choice(WORDS, 400)))
    for threads, blas in ((1, 1), (2, 2), (5, 1)):
        numbers = {name: str(blas) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        out = tmp_path / f"out{threads}"
        subprocess.run(
            [sys.executable, "-c", CALL, str(network), str(out), str(text)], check=True,
            env={**os.environ, **numbers, "SCRIMP_THREADS": str(threads)},
        )  # fmt: skip
        found.add(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    assert len(found) == 1
