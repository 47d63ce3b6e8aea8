"""The loop: what a method is given, in which order, and what an interruption leaves."""

import numpy as np
import pytest
from networks import write_network
from test_statistics import assert_describes, whole_inputs

from scrimp import models
from scrimp.calibrate.split import split
from scrimp.errors import Refused, ScrimpError
from scrimp.formats import parse
from scrimp.quantize import compress as job_file
from scrimp.quantize.compress import compress, run
from scrimp.quantize.decoded import decode
from scrimp.quantize.job import prepare
from scrimp.quantize.plan import Choice, Plan
from scrimp.quantize.walked import schedule
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store.partial import Partial, partial_of

HOW = {"format": "int4:g32", "method": "stand-in", "calibrate_windows": 5}


class Recorded:
    """Statistics by the name of the matrix."""

    def __init__(self, monkeypatch):
        from scrimp.quantize import walked

        self.of, real = {}, walked.one

        def one(name, stored, choice, statistics=None, rewrite=None):
            self.of[name] = statistics
            return real(name, stored, choice, statistics, rewrite)

        monkeypatch.setattr(walked, "one", one)


@pytest.fixture
def recorded(stand_in, monkeypatch):
    return Recorded(monkeypatch).of


def windows_of(monkeypatch, calibration):
    import test_statistics

    monkeypatch.setattr(test_statistics, "WINDOWS", calibration.windows)


def hybrid_inputs(original, small, block_names):
    """Inputs of a block's matrices when all blocks before it are those of ``small``, from whole networks."""

    class Mixed:
        config = original.config
        tensors = original.tensors
        quick = staticmethod(original.quick)

        def read(self, name):
            return (small if name not in block_names else original).read(name)

    return whole_inputs(Mixed())


@pytest.mark.parametrize("tied", [False, True])
def test_a_block_sees_what_the_quantized_blocks_before_it_make(tied, recorded, tmp_path, text, monkeypatch):
    path = write_network(tmp_path / "model", tie_word_embeddings=tied)
    report = run(job := prepare(path, Wish(calibrate=text, **HOW)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    blocks = split(models.build(job.source.config)[1])
    with open_source(tmp_path / "out") as small, job.source as original:
        late = {"model.embed_tokens.weight"} if tied else set()
        for block in blocks[1:]:
            inputs = hybrid_inputs(original, small, set(block.matrices) | late)
            for name in block.reads:
                assert_describes(recorded[name], inputs[name], 2e-3)
    assert len(report.tensors) == len(job.plan.choices)


def test_the_original_prefix_sees_the_pristine_network(recorded, network, tmp_path, text, monkeypatch):
    run(job := prepare(network, Wish(calibrate=text, calibrate_prefix="original", **HOW)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    with job.source as original:
        for name, x in whole_inputs(original).items():
            assert_describes(recorded[name], x, 1e-3)


def test_an_embedding_gets_no_statistics_and_a_note_says_so(recorded, network, tmp_path, text):
    report = compress(network, tmp_path / "out", calibrate=text, **HOW)
    assert recorded["model.embed_tokens.weight"] is None
    assert all(statistics is not None for name, statistics in recorded.items() if "_proj" in name or "head" in name)
    assert any("model.embed_tokens.weight multiplies with nothing" in note for note in report.notes)
    methods = {tensor.name: tensor.method for tensor in report.tensors}
    assert methods.pop("model.embed_tokens.weight") == "rtn"
    assert set(methods.values()) == {"stand-in"}


def test_the_output_error_is_that_of_the_outputs(recorded, network, tmp_path, text, monkeypatch):
    report = run(job := prepare(network, Wish(calibrate=text, calibrate_prefix="original", **HOW)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    with job.source as original, open_source(tmp_path / "out") as small:
        for name, x in whole_inputs(original).items():
            exact, stored = (decode(source.read(name)).astype(np.float64) for source in (original, small))
            expected = np.linalg.norm(x @ (exact - stored).T) / np.linalg.norm(x @ exact.T)
            (found,) = [tensor.output_error for tensor in report.tensors if tensor.name == name]
            assert found == pytest.approx(expected, rel=1e-3)


def test_the_same_call_gives_the_same_bytes(stand_in, network, tmp_path, text):
    for name in ("one", "two"):
        compress(network, tmp_path / name, calibrate=text, **HOW)
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert first == second


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("prefix", ["quantized", "original"])
@pytest.mark.parametrize("finished", [3, 12, 27])
def test_an_interrupted_walk_ends_in_the_same_bytes(finished, prefix, tied, stand_in, tmp_path, text, monkeypatch):
    path = write_network(tmp_path / "model", tie_word_embeddings=tied)
    how = {**HOW, "calibrate": text, "calibrate_prefix": prefix}
    straight = compress(path, tmp_path / "straight", **how)
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == finished:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(Partial, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(path, tmp_path / "out", **how)
    monkeypatch.setattr(Partial, "write", write)
    assert partial_of(tmp_path / "out").exists()
    report = compress(path, tmp_path / "out", **how)
    assert report.resumed == finished
    assert report.tensors == straight.tensors
    assert report.notes == straight.notes
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("straight", "out"))
    assert first == second


@pytest.mark.parametrize("change", [{"calibrate_windows": 4}, {"calibrate_prefix": "original"}])
def test_another_calibration_does_not_resume(change, stand_in, network, tmp_path, text, monkeypatch):
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == 5:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(Partial, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(network, tmp_path / "out", calibrate=text, **HOW)
    monkeypatch.setattr(Partial, "write", write)
    assert compress(network, tmp_path / "out", calibrate=text, **{**HOW, **change}).resumed == 0


def test_a_finished_tensor_that_changed_on_disk_is_noticed(stand_in, network, tmp_path, text, monkeypatch):
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == 12:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(Partial, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(network, tmp_path / "out", calibrate=text, **HOW)
    monkeypatch.setattr(Partial, "write", write)
    file = partial_of(tmp_path / "out") / "model.safetensors"
    raw = bytearray(file.read_bytes())
    half = len(raw) // 8
    raw[half:] = bytes(len(raw) - half)
    file.write_bytes(raw)
    with pytest.raises(ScrimpError, match="is not what was written"):
        compress(network, tmp_path / "out", calibrate=text, **HOW)


def test_a_tied_embedding_is_quantized_with_the_head_only_when_its_method_calibrates(stand_in, tmp_path):
    path = write_network(tmp_path / "model", tie_word_embeddings=True)
    with open_source(path) as source:
        blocks = split(models.build(source.config)[1])
        shapes = {name: info.shape for name, info in source.tensors.items()}
        for method, at in (("stand-in", -1), ("rtn", 0)):
            choices = {name: Choice(parse("int4:g32"), method) for name in shapes if len(shapes[name]) == 2}
            due = schedule(Plan(shapes, choices), blocks)
            assert "model.embed_tokens.weight" in due[at]
            assert sorted(name for names in due for name in names) == sorted(choices)


def test_a_tied_embedding_that_is_only_rounded_counts_in_the_prefix(recorded, tmp_path, text, monkeypatch):
    path = write_network(tmp_path / "model", tie_word_embeddings=True)
    rules = ["*embed_tokens=int2:g32@rtn"]
    run(job := prepare(path, Wish(calibrate=text, rules=rules, **HOW)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    name = "model.layers.0.self_attn.q_proj.weight"
    with open_source(tmp_path / "out") as small, job.source as original:
        assert_describes(recorded[name], hybrid_inputs(original, small, {name})[name], 2e-3)


def test_starved_layers_are_named(stand_in, network, tmp_path, text):
    few = compress(network, tmp_path / "few", calibrate=text, **{**HOW, "calibrate_windows": 2})
    (note,) = [note for note in few.notes if note.startswith("starved")]
    assert "3 matrices such as model.layers.0.mlp.down_proj.weight (96 inputs)" in note
    many = compress(network, tmp_path / "many", calibrate=text, **HOW)
    assert not any(note.startswith("starved") for note in many.notes)


def test_methods_that_do_not_calibrate_walk_nowhere(network, tmp_path, monkeypatch):
    monkeypatch.delattr(job_file, "apply_walked")
    report = compress(network, tmp_path / "out", format="int4:g32")
    assert all(tensor.output_error is None for tensor in report.tensors)
    assert "output_error" not in report.to_json()["tensors"][0]


def test_mixed_plans_tell_the_output_error_of_every_method(stand_in, network, tmp_path, text):
    report = compress(network, tmp_path / "out", calibrate=text, rules=["*.down_proj=int3:g32@rtn"], **HOW)
    rounded = [tensor for tensor in report.tensors if "down_proj" in tensor.name]
    assert [tensor.method for tensor in rounded] == ["rtn"] * 3
    assert all(tensor.output_error and 0 < tensor.output_error < 1 for tensor in rounded)


def test_a_model_without_tokenizer_is_refused(stand_in, tmp_path, text):
    path = write_network(tmp_path / "model", tokenizer=False)
    with pytest.raises(Refused, match="stand-in reads a text through the network, and this model has no tokenizer"):
        prepare(path, Wish(calibrate=text, **HOW))


def test_the_prediction_knows_the_walk(stand_in, network, text):
    job = prepare(network, Wish(calibrate=text, **HOW))
    with job.source:
        told = job.predict()
    assert told.seconds > 0
    assert told.memory_bytes > 0


def test_what_a_method_says_reaches_the_report_and_survives_an_interruption(
    stand_in, network, tmp_path, text, monkeypatch
):
    straight = compress(network, tmp_path / "straight", calibrate=text, **HOW)
    said = [note for note in straight.notes if note.endswith("down_proj.weight: ragged")]
    assert len(said) == 3
    write = Partial.write

    def stop(self, *arguments):
        if len(self.finished) == len(straight.tensors) - 2:
            raise KeyboardInterrupt
        write(self, *arguments)

    monkeypatch.setattr(Partial, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        compress(network, tmp_path / "out", calibrate=text, **HOW)
    monkeypatch.setattr(Partial, "write", write)
    assert compress(network, tmp_path / "out", calibrate=text, **HOW).notes == straight.notes
