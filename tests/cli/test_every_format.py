"""Every format of the catalogue as a model's: stored, opened again, run; and what does not run as it is says so."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_model import write_text, write_tiny_model

import scrimp
from scrimp.cli.main import main
from scrimp.engine.float_path import as_run, row_reader, run_format
from scrimp.errors import Refused
from scrimp.formats import encode, parse
from scrimp.measure.format_report import catalogue
from scrimp.quantize import rtn
from scrimp.sources import open_source
from scrimp.store.verify import verify
from scrimp.tensors import stored_bytes

SPELLED = ["fp8_e4m3:row", "posit8_1:row@bf16", "nf4:tensor", "kmeans3:tensor", "kmeans2:row@e4m3", "int4:g32@e4m3",
           "int4:g64@e8m0", "int4:tensor@e4m3", "int7z:g32", "fixed8.4", "sm6.3:g32", "lns8:row@f32"]  # fmt: skip
FORMATS = [name for name in catalogue() if name != "e8m0"] + SPELLED
#: What is encoded by the format's own rules, not by those of integers.
OWN = [name for name in FORMATS if not (f := parse(name)).runs or f.element.kind == "table" or f.scale == "e8m0"]
Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def weights(model):
    return {name: w for name, w in load_file(model / "model.safetensors").items() if w.ndim == 2}


@pytest.fixture(scope="module")
def lns8(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "lns8"
    scrimp.compress(model, out, format="lns8:g64", embedding="mxfp6_e2m3")
    return out


def assert_same(stored, expected):
    assert stored.format == expected.format
    assert stored.parts().keys() == expected.parts().keys()
    for part, values in expected.parts().items():
        assert stored.parts()[part].dtype == values.dtype, part
        assert stored.parts()[part].tobytes() == values.tobytes(), part
    if expected.format.element.kind != "float":
        assert np.array_equal(stored.codes(), expected.codes())
    assert stored.dequantize().tobytes() == expected.decode().tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_model_holds_what_encode_gives_bit_for_bit(model, weights, tmp_path, name):
    scrimp.compress(model, tmp_path / "out", format=name, embedding=name, method="rtn:absmax")
    with open_source(tmp_path / "out") as source:
        for tensor, weight in weights.items():
            assert_same(source.read(tensor), encode(weight, name))
            assert source.tensors[tensor].nbytes == stored_bytes(parse(name), weight.shape)


@pytest.mark.parametrize("name", OWN)
def test_the_search_for_the_least_error_is_encode_s_own(model, weights, tmp_path, name):
    scrimp.compress(model, tmp_path / "out", format=name, embedding=name)
    with open_source(tmp_path / "out") as source:
        for tensor, weight in weights.items():
            assert_same(source.read(tensor), encode(weight, name, rule=rtn.rule_of(parse(name), "mse")))


@pytest.mark.parametrize("name", FORMATS)
def test_logits_are_those_of_a_model_that_holds_the_decoded_weights(model, tmp_path, name):
    scrimp.compress(model, tmp_path / "out", format=name, embedding=name)
    shutil.copytree(model, tmp_path / "decoded")
    tensors = load_file(model / "model.safetensors")
    with open_source(tmp_path / "out") as source:
        decoded = {tensor: source.read(tensor).dequantize() for tensor in tensors if tensors[tensor].ndim == 2}
    save_file(tensors | decoded, tmp_path / "decoded" / "model.safetensors")
    runs, as_it_runs = parse(name).runs, run_format(parse(name)).name
    if as_it_runs == "bf16" and not runs:  # which loses nothing
        scrimp.compress(tmp_path / "decoded", tmp_path / "in_bf16", format="bf16", embedding="bf16")
    for arithmetic in ("f32",) if runs else ("f32", "int8"):
        same = "in_bf16" if as_it_runs == "bf16" and not runs and arithmetic == "int8" else "decoded"
        with (
            scrimp.open(tmp_path / "out", arithmetic=arithmetic) as small,
            scrimp.open(tmp_path / same, arithmetic=arithmetic) as large,
        ):
            ours, theirs = small.logits([1, 2, 3]), large.logits([1, 2, 3])
            assert any(f"is decoded to {as_it_runs}" in note for note in small.notes) != runs
            assert np.allclose(ours, theirs, rtol=1e-5, atol=1e-5) if runs else np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", OWN)
def test_rows_decode_alike_in_pieces_and_whole(name):
    weight = np.random.default_rng(5).standard_normal((53, 76)).astype(np.float32)
    tensor = rtn.quantize(weight, parse(name))
    whole, read = tensor.dequantize(), row_reader(tensor)
    for begin, end in ((0, 53), (0, 16), (16, 48), (5, 6), (31, 53), (48, 53)):
        assert np.array_equal(read(begin, end), whole[begin:end])
    assert np.array_equal(as_run(tensor).dequantize(), whole)


@pytest.mark.parametrize("name", OWN)
def test_threads_change_no_bit(name):
    weight = np.random.default_rng(6).standard_normal((131, 520)).astype(np.float32)
    one, two = (rtn.quantize(weight, parse(name), threads=threads) for threads in (1, 3))
    assert_same(one, two)
    assert_same(two, encode(weight, name, rule=rtn.rule_of(parse(name), "mse")))


def spoken(capsys, *arguments):
    assert main([*map(str, arguments)]) in (0, 4)
    captured = capsys.readouterr()
    return captured.out, captured.err


MEMORY = {
    name: sum(stored_bytes(run_format(parse(name)), shape) for shape in shapes)
    for name, shapes in {"lns8:g64": [(32, 32)] * 2 + [(16, 32)] * 2 + [(64, 32)] * 2 + [(32, 64)],
                         "mxfp6_e2m3": [(24, 32)] * 2}.items()
}  # fmt: skip
NOTES = [
    f"{name} is decoded to {to} to run: {count} matrices, {MEMORY[name] / 1000:.1f} kB in memory"
    for name, to, count in (("lns8:g64", "f32", 7), ("mxfp6_e2m3", "bf16", 2))
]


def test_every_command_that_runs_it_says_on_stderr_that_it_is_decoded(model, lns8, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    for arguments in (
        ("run", lns8, "w1 w2", "--raw", "--max-tokens", 2),
        ("eval", lns8, "--text", text, "--context", 32),
        ("bench", lns8, "--prefill", 8, "--decode", 4, "--repeat", 1),
        ("inspect", lns8),
        (
            "compress",
            model,
            "-o",
            tmp_path / "out",
            "--format",
            "lns8:g64",
            "--embedding",
            "mxfp6_e2m3",
            "--text",
            text,
        ),
    ):
        out, err = spoken(capsys, *arguments)
        for note in NOTES:
            assert f"note: {note}\n" in err, arguments[0]
            assert note not in out


def test_reports_hold_the_note_and_a_model_that_runs_as_it_is_has_none(model, lns8, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    for arguments in (
        ("eval", lns8, "--text", text, "--context", 32),
        ("bench", lns8, "--prefill", 8, "--decode", 4, "--repeat", 1),
        ("inspect", lns8),
    ):
        assert sorted(json.loads(spoken(capsys, *arguments, "--json")[0])["notes"]) == NOTES
    assert set(NOTES) <= set(json.loads((lns8 / "scrimp.json").read_text())["notes"])
    assert json.loads(spoken(capsys, "inspect", model, "--json")[0])["notes"] == []
    with scrimp.open(model) as plain:
        assert plain.notes == ()


def test_a_table_that_8_bits_do_not_hold_is_said_to_be_rounded(model, tmp_path, capsys):
    text = write_text(tmp_path / "text.txt", 200)
    scrimp.compress(model, tmp_path / "out", format="nf4:g64", embedding="mxfp4")
    memory = sum(stored_bytes(parse("nf4:g64"), shape) for shape in [(32, 32)] * 2 + [(16, 32)] * 2 + [(64, 32)] * 2)
    memory += stored_bytes(parse("nf4:g64"), (32, 64))
    note = ("nf4:g64 has its levels in 8 bits where activations have (off by up to 0.4% of the largest): 7 matrices, "
            f"{memory / 1000:.1f} kB in memory")  # fmt: skip
    found = json.loads(spoken(capsys, "eval", tmp_path / "out", "--text", text, "--context", 32, "--json")[0])
    assert found["notes"] == [note]
    with scrimp.open(tmp_path / "out", arithmetic="f32") as small:
        assert small.logits([1, 2, 3]).shape == (3, 24)


def test_traffic_counts_what_is_read_as_it_runs_and_size_the_bytes_that_are_stored(model, lns8, capsys):
    arguments = ("--prefill", 8, "--decode", 4, "--repeat", 1, "--json")
    small, large = (json.loads(spoken(capsys, "bench", path, *arguments)[0]) for path in (lns8, model))
    # all in float32 but the head, and a row of the embedding, which are in bf16
    in_f32, in_bf16 = (stored_bytes(parse(name), (24, 32)) for name in ("f32", "bf16"))
    saved = in_f32 + in_f32 // 24 - (in_bf16 + in_bf16 // 24)
    assert large["bytes_per_token"] - small["bytes_per_token"] == saved
    report = json.loads(spoken(capsys, "inspect", lns8, "--json")[0])
    stored = {tensor["name"]: tensor["bytes"] for tensor in report["tensors"]}
    assert stored[Q] == stored_bytes(parse("lns8:g64"), (32, 32))
    assert report["file_bytes"] == sum(path.stat().st_size for path in lns8.iterdir())


@pytest.mark.parametrize("name", FORMATS)
def test_inspect_tells_everything_of_a_tensor(model, weights, tmp_path, capsys, name):
    scrimp.compress(model, tmp_path / "out", format=name)
    found = json.loads(spoken(capsys, "inspect", tmp_path / "out", "--tensor", Q, "--json")[0])
    tensor = rtn.quantize(weights[Q], parse(name))
    numbers = tensor.dequantize().astype(np.float64)
    assert (found["shape"], found["format"], found["bytes"]) == ([32, 32], parse(name).name, tensor.nbytes)
    assert found["bits_per_weight"] == pytest.approx(8 * tensor.nbytes / 1024)
    assert (found["min"], found["max"]) == (numbers.min(), numbers.max())
    assert found["mean"] == pytest.approx(numbers.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(numbers.std(), rel=1e-4)
    assert sum(found["histogram"]["counts"]) == 1024
    if name == "f32":
        assert found["entropy_bits"] is None
        return
    if tensor.format.element.kind != "float":
        shares = np.unique(tensor.codes(), return_counts=True)[1] / 1024
        assert found["entropy_bits"] == pytest.approx(-(shares * np.log2(shares)).sum())
    assert found["capacity_used"] == pytest.approx(found["entropy_bits"] / math.log2(tensor.format.element.levels))


def test_weights_that_a_format_cannot_hold_are_refused_by_name(model, tmp_path, capsys):
    tensors = load_file(model / "model.safetensors")
    tensors[Q] = tensors[Q] * 1e6
    shutil.copytree(model, tmp_path / "loud")
    save_file(tensors, tmp_path / "loud" / "model.safetensors")
    arguments = ["compress", str(tmp_path / "loud"), "-o", str(tmp_path / "out"), "--format", "fp8_e4m3_ieee"]
    assert main(arguments) == 3
    err = capsys.readouterr().err
    assert Q in err
    assert "become NaN or infinite in fp8_e4m3_ieee" in err


def test_a_decoded_format_is_kept_and_compressed_again_like_any_other(lns8, tmp_path, capsys):
    spoken(capsys, "compress", lns8, "-o", tmp_path / "kept", "--keep", "--no-loss")
    assert (tmp_path / "kept" / "model.safetensors").read_bytes() == (lns8 / "model.safetensors").read_bytes()
    spoken(capsys, "compress", lns8, "-o", tmp_path / "again", "--format", "int8:g32", "--no-loss")
    with open_source(lns8) as source, open_source(tmp_path / "again") as again:
        assert_same(again.read(Q), rtn.quantize(source.read(Q).dequantize(), parse("int8:g32")))


def test_every_bit_on_the_disk_is_checked_when_a_store_is_verified(lns8, tmp_path):
    shutil.copytree(lns8, tmp_path / "copy")
    with open_source(tmp_path / "copy") as source:
        at = source._file.tensors[f"{Q}.scales"].offset
    with (tmp_path / "copy" / "model.safetensors").open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(Refused, match=f"{Q}.scales is not what was written"):
        verify(tmp_path / "copy")
