"""Matrices with side-cars through everything: planned, counted, written, interrupted, run, repacked, attacked."""

import json
import shutil

import numpy as np
import pytest
from networks import write_network
from test_statistics import assert_describes, whole_inputs
from test_walked import Recorded, windows_of

from scrimp.cli.main import main
from scrimp.errors import Refused, UsageError
from scrimp.model import open_model
from scrimp.models.sidecars import owner
from scrimp.quantize import walked
from scrimp.quantize.compress import compress, run
from scrimp.quantize.job import prepare
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store.layout import MODEL_FILE
from scrimp.store.partial import Partial
from scrimp.tensors import QTensor

METHODS = ["lowrank:4+gptq", "quip", "quip+rtn", "llm_int8", "llm_int8+gptq+refit", "awq+quip"]
TOKENS = list(range(20))
Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def how(text):
    return {"format": "int4:g32", "calibrate": text, "calibrate_windows": 5}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One network compressed with each method, and the text it was calibrated on; nobody may change them."""
    from networks import WORDS

    here = tmp_path_factory.mktemp("sidecars")
    text = here / "text"
    text.write_text(" ".join(np.random.default_rng(5).choice(WORDS, 400)))
    network = write_network(here / "network")
    for method in METHODS:
        compress(network, here / method, format="int4:g32", method=method, calibrate=text, calibrate_windows=5)
    return here


def parts(path):
    with open_source(path) as source:
        found = {name: source.read(name) for name in source.tensors}
    return {name: t.parts() if isinstance(t, QTensor) else {"": t} for name, t in found.items()}


def logits(path, arithmetic="int8"):
    with open_model(path, arithmetic=arithmetic) as model:
        return model.logits(TOKENS)


def assert_same_tensors(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert all(np.array_equal(a[name][part], b[name][part]) for part in a[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_knows_every_byte_before(method, stores, how):
    job = prepare(stores / "network", Wish(method=method, **how))
    with job.source:
        predicted = job.predict().file_bytes
        planned = {name: car.shape for name, car in job.plan.stored.items()}
    with open_source(stores / method) as source:
        assert {name: info.shape for name, info in source.tensors.items()} == planned
        stored = sum(info.nbytes for info in source.tensors.values())
        assert job.plan.nbytes == stored
        written = sum(file.stat().st_size for file in (stores / method).iterdir())
        # what a run adds: its measured errors in more digits, its notes; never a tensor
        assert abs(predicted - written) <= 6000 < stored
        assert source.parameters == job.plan.parameters


@pytest.mark.parametrize("method", METHODS)
def test_errors_told_are_those_of_the_whole(method, stores, how, tmp_path, monkeypatch):
    """The plain network with the matrices that methods say theirs stand for gives the logits of the store."""
    stands_for, real = {}, walked.one

    def one(name, stored, choice, statistics=None, rewrite=None):
        from scrimp.quantize.apply import method as method_of
        from scrimp.quantize.decoded import decode

        applied = real(name, stored, choice, statistics, rewrite)
        if choice is not None:
            weight = decode(stored) if rewrite is None else rewrite(name, decode(stored))
            made = method_of(choice.method).run(weight, choice.format, statistics)
            stands_for[name] = decode(made.tensor) if made.effective is None else made.effective
        return applied

    monkeypatch.setattr(walked, "one", one)
    compress(stores / "network", tmp_path / "out", method=method, calibrate_prefix="quantized", **how)
    plain = shutil.copytree(stores / "network", tmp_path / "plain")
    from safetensors.numpy import load_file, save_file

    with open_source(tmp_path / "out") as small:  # rewritten where a method does that
        vectors = {name: small.read(name) for name in small.tensors if name.endswith("norm.weight")}
    tensors = load_file(plain / "model.safetensors") | stands_for | vectors
    save_file(tensors, plain / "model.safetensors")
    exact, found, source = (logits(path, "f32") for path in (plain, tmp_path / "out", stores / "network"))
    # another order of sums in float32, against what four bits do to this network
    assert np.abs(found - exact).max() <= 1e-3 * np.abs(source - exact).max()


@pytest.mark.parametrize("method", METHODS)
def test_the_head_is_calibrated_behind_blocks_as_they_are_stored(method, stores, how, tmp_path, monkeypatch):
    """Statistics of the last matrix are those of the finished store, tapped from the whole network."""
    recorded = Recorded(monkeypatch).of
    run(job := prepare(stores / "network", Wish(method=method, **how)), tmp_path / "out")
    windows_of(monkeypatch, job.calibration)
    with job.source, open_source(tmp_path / "out") as small:
        seen, exact = recorded["lm_head.weight"], whole_inputs(small)["lm_head.weight"]
        pristine = whole_inputs(job.source)["lm_head.weight"]
    assert_describes(seen, exact, 2e-3)
    with pytest.raises(AssertionError):
        assert_describes(seen, pristine, 2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_walk_ends_with_the_same_bits(method, stores, how, tmp_path, monkeypatch):
    write, straight = Partial.write, parts(stores / method)
    for stop_at in (5, len(straight) - 3):

        def stop(self, *arguments, stop_at=stop_at):
            if len(self.finished) == stop_at:
                raise KeyboardInterrupt
            write(self, *arguments)

        monkeypatch.setattr(Partial, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            compress(stores / "network", tmp_path / "out", method=method, **how)
    monkeypatch.setattr(Partial, "write", write)
    report = compress(stores / "network", tmp_path / "out", method=method, **how)
    assert report.resumed == len(straight) - 3 or method == "awq+quip"  # a rewrite cut off is made anew
    assert_same_tensors(parts(tmp_path / "out"), straight)
    assert np.array_equal(logits(tmp_path / "out"), logits(stores / method))


@pytest.mark.parametrize("method", METHODS)
def test_repacking_keeps_every_bit(method, stores, tmp_path):
    compress(stores / method, tmp_path / "again", keep=True)
    assert_same_tensors(parts(tmp_path / "again"), parts(stores / method))
    assert np.array_equal(logits(tmp_path / "again"), logits(stores / method))


def test_compressing_again_is_refused_in_words(stores, tmp_path):
    with pytest.raises(Refused, match="has matrices with side-cars, which hold a part of their weights"):
        compress(stores / "quip", tmp_path / "out", format="int4:g32")
    assert not (tmp_path / "out").exists()


def test_reports_and_notes_say_what_stands_beside(stores, how, tmp_path):
    report = compress(stores / "network", tmp_path / "out", method="quip", **how)
    methods = {tensor.name: tensor.method for tensor in report.tensors}
    assert methods[Q] == "quip"
    assert methods["model.layers.1.self_attn.v_proj.weight"] == "quip:1x2+gptq"
    assert methods["model.layers.1.self_attn.o_proj.weight"] == "quip:4x1+gptq"
    assert methods["lm_head.weight"] == "gptq"
    assert any(note.startswith("21 matrices have side-cars, ") for note in report.notes)
    without = next(note for note in report.notes if note.startswith("no side-car beside "))
    assert "lm_head.weight" in without
    assert "model.embed_tokens.weight" in without
    assert all(tensor.output_error for tensor in report.tensors if "_proj" in tensor.name)


def test_a_rule_gives_some_matrices_a_side_car_and_a_size_counts_it(stores, text, tmp_path):
    rules = ["*.down_proj=int3:g32@lowrank:8+rtn", "*.q_proj=int4:g32@quip", "*.up_proj=bf16@llm_int8"]
    report = compress(stores / "network", tmp_path / "out", format="int4:g32", rules=rules, calibrate=text)
    with open_source(tmp_path / "out") as source:
        beside = sorted({name.rpartition(".")[2] for name in source.tensors if owner(name)})
    assert beside == ["lowrank_a", "lowrank_b", "rotation"]
    assert {t.method for t in report.tensors} == {"rtn", "lowrank:8+rtn", "quip"}
    fitted = compress(stores / "network", tmp_path / "small", size=130_000, method="lowrank:4", calibrate=text,
                      calibrate_windows=2)  # fmt: skip
    assert fitted.file_bytes <= 130_000
    with open_source(tmp_path / "small") as source:
        assert any(owner(name) for name in source.tensors)


@pytest.mark.parametrize("method", ["quip", "llm_int8", "lowrank:4+gptq"])
def test_every_verb_works_with_them(method, stores, capsys):
    store, text = str(stores / method), str(stores / "text")
    assert main(["inspect", store, "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    with open_source(stores / "network") as source:
        assert inspected["parameters"] == source.parameters
    assert any(owner(tensor["name"]) for tensor in inspected["tensors"])
    assert main(["inspect", store]) == 0
    assert main(["run", store, "w1 w2", "--raw", "--max-tokens", "3", "--temperature", "0"]) == 0
    reference = str(stores / "network")
    capsys.readouterr()
    assert (
        main(["eval", store, "--text", text, "--context", "32", "--reference", reference, "--json"]) == 4
    )  # random weights
    assert json.loads(capsys.readouterr().out)["kl_mean"] >= 0


def test_speed_and_comparison_know_their_operations(stores, text, tmp_path, capsys):
    rules = ["*.o_proj=int4:g32@llm_int8", "*.down_proj=int4:g32@lowrank:4"]
    store, reference = str(tmp_path / "mixed"), str(stores / "network")
    compress(reference, store, format="int4:g32", method="quip", rules=rules, calibrate=text, calibrate_windows=5)
    assert main(["compare", store, "--reference", reference, "--text", str(text), "--context", "32", "--prefill", "4",
                 "--decode", "2", "--rounds", "1", "--json"]) == 4  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    with open_source(stores / "network") as source:
        assert row["parameters"] == source.parameters
    capsys.readouterr()
    assert main(["bench", store, "--prefill", "4", "--decode", "2", "--repeat", "1", "--profile", "--json"]) == 0
    profile = json.loads(capsys.readouterr().out)["profile"]
    assert {"hadamard", "select"} <= {entry["op"].split()[0] for entry in profile}


def edited(stores, method, tmp_path, edit):
    """A copy of a store with an edited header; the payload stays."""
    path = shutil.copytree(stores / method, tmp_path / "copy")
    raw = (path / MODEL_FILE).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    payload = bytearray(raw[8 + length :])
    edit(header, payload)
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    (path / MODEL_FILE).write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def put(name, values):
    def edit(header, payload):
        begin, end = header[name]["data_offsets"]
        payload[begin:end] = np.float32(values).tobytes()

    return edit


def rename(old, new):
    def edit(header, payload):
        header[new] = header.pop(old)

    return edit


@pytest.mark.parametrize(
    ("method", "edit", "says"),
    [
        ("quip", put(f"{Q}.rotation", [1, 5, 1]), f"{Q}.rotation cuts 64 × 64 into 1 and 5 parts"),
        ("quip", put(f"{Q}.rotation", [1, 1e9, 1]), f"{Q}.rotation holds numbers that are no integers"),
        ("quip", put(f"{Q}.rotation", [np.nan, 1, 1]), f"{Q}.rotation holds numbers that are no integers"),
        ("quip", rename(f"{Q}.rotation", f"{Q}.rotations"), f"{Q}.rotations, which scrimp's llama does not use"),
        ("quip", rename(f"{Q}.rotation", "lm_head.weight.rotation"), "lm_head.weight.rotation stands beside no"),
        ("quip", rename(f"{Q}.rotation", f"{Q}.channels"), f"{Q}.channels: channels do not make a whole"),
        ("llm_int8", put(f"{Q}.channels", [64]), f"{Q}.channels holds numbers that are no integers from 0 to 63"),
        ("llm_int8", rename(f"{Q}.channels", f"{Q}.rotation"), f"{Q}.outliers: outliers, rotation do not make a whole"),
    ],
)  # fmt: skip
def test_hostile_side_cars_are_refused_by_name(method, edit, says, stores, tmp_path):
    path = edited(stores, method, tmp_path, edit)
    with pytest.raises(Refused) as refused:
        open_source(path)
    assert says in refused.value.message


def test_a_side_car_in_a_foreign_file_is_a_tensor_too_many(tmp_path):
    from safetensors.numpy import load_file, save_file

    path = write_network(tmp_path / "model")
    tensors = load_file(path / "model.safetensors") | {f"{Q}.rotation": np.float32([1, 1, 1])}
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(Refused, match=r"q_proj.weight.rotation, which scrimp's llama does not use"):
        open_source(path)


@pytest.mark.parametrize("name", [
    "quip+quip", "lowrank:0", "lowrank", "lowrank:x+gptq", "quip:3+gptq", "gptq+quip", "lowrank:4+llm_int8",
    "llm_int8:2", "quip:0x1",
])  # fmt: skip
def test_names_that_mean_nothing_are_refused(name, stores, text, tmp_path):
    with pytest.raises(UsageError, match="is no known method"):
        compress(stores / "network", tmp_path / "out", format="int4:g32", method=name, calibrate=text)


def test_qwen2_with_its_biases_is_rotated_too(text, tmp_path):
    network = write_network(tmp_path / "qwen", model_type="qwen2", tie_word_embeddings=True)
    for method in ("quip", "lowrank:4", "llm_int8"):
        compress(network, tmp_path / method, format="int8:g32", method=method, calibrate=text, calibrate_windows=5)
        plain = compress(network, tmp_path / "plain", format="int8:g32", method="rtn")
        assert plain.file_bytes < sum(file.stat().st_size for file in (tmp_path / method).iterdir())
        exact = logits(network, "f32")
        apart = [np.abs(logits(tmp_path / path, "f32") - exact).mean() for path in (method, "plain")]
        assert apart[0] < 2 * apart[1]  # a wrong rotation would be off by the logits themselves
        assert apart[0] < 0.1 * np.abs(exact).mean()
