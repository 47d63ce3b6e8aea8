"""What a clumsy or hostile user got wrong answers for: packed stores, sweeps and recoveries."""

from __future__ import annotations

import importlib
import json
import shutil

import pytest
from tiny_model import write_text, write_tiny_model

from scrimp.cli.main import main
from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.quantize.methods import method
from scrimp.store.open import open_store


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("SCRIMP_THREADS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("texts") / "text.txt", 200)


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("stores") / "int4"
    assert main(["compress", str(model), "-o", str(out), "--format", "int4:g32", "--no-loss"]) == 0
    return out


def said(capsys, code, *arguments):
    """What stands on stderr, one error of one line with its hint."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    error, hint = capsys.readouterr().err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert hint.startswith("hint:  ")
    assert "scrimp itself failed" not in error
    return f"{error}\n{hint}"


def files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("name", ["quip", "llm_int8"])
def test_side_cars_that_are_vectors_are_read_from_a_packed_store(name, model, text, tmp_path):
    wish = ["--format", "int4:g32", "--method", name, "--calibrate", str(text), "--no-loss"]
    assert main(["compress", str(model), "-o", str(tmp_path / "plain"), *wish]) == 0
    assert main(["compress", str(model), "-o", str(tmp_path / "packed"), *wish, "--pack"]) == 0
    with open_store(tmp_path / "plain") as plain, open_store(tmp_path / "packed") as packed:
        assert sorted(plain.tensors) == sorted(packed.tensors)
        vectors = [each for each in plain.tensors if each not in plain.formats]
        assert any(each.endswith((".rotation", ".channels")) for each in vectors)
        for each in vectors:
            assert plain.read(each).tobytes() == packed.read(each).tobytes()


def test_a_group_of_thousands_of_digits(store, tmp_path):
    spelled = "int4:g" + "9" * 5000
    with pytest.raises(UsageError, match="no block"):
        parse(spelled)
    damaged = shutil.copytree(store, tmp_path / "damaged")
    config = json.loads((damaged / "config.json").read_text())
    config["quantization_config"]["tensors"]["lm_head.weight"]["format"] = spelled
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"lm_head\.weight"):
        open_store(damaged)


@pytest.mark.filterwarnings("error")
def test_a_scale_of_activations_beyond_float32_is_refused_without_a_warning(model, text, tmp_path):
    out = tmp_path / "fixed"
    wish = ["--format", "int4:g32", "--activations", "static", "--calibrate", str(text), "--no-loss"]
    assert main(["compress", str(model), "-o", str(out), *wish]) == 0
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"]["activations"]["scales"]["lm_head.weight"] = 1e308
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(Refused, match="no scale of the inputs"):
        open_store(out)


@pytest.mark.parametrize("name", ["ecsq", "ecsq:", "ecsq:nan", "ecsq: 3", "ecsq:٣", "ecsq:1_0", "ecsq:-1", "ecsq:1e0"])
def test_a_rate_is_spelled_in_one_way(name):
    with pytest.raises(UsageError, match="no known method") as error:
        method(name)
    assert "ecsq:BITS" in str(error.value)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("[calibration]\nwindows = " + "9" * 5000, 3),
        ("[calibration]\nwindows = 0", 2),
        ('[calibration]\nprefix = "é"', 2),
        ('[calibration]\ntext = "a\\u0000b"', 2),
        ('[evaluation]\ntext = "a\\u0000b"', 2),
        ('[[row]]\nformat = "int4"\ntokenizer = "a\\u0000b"', 2),
        ("[[row]]\nbits = " + "9" * 400, 2),
        ("[[row]]\nkl = " + "9" * 400, 2),
    ],
)
def test_a_sweep_is_refused_before_it_begins(lines, code, text, tmp_path, capsys):
    write_tiny_model(tmp_path / "tiny")
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'model = "tiny"\n[grid]\nformats = ["int8"]\nmethods = ["gptq"]\n{lines}\n', encoding="utf-8")
    said(capsys, code, "compare", "--sweep", sweep, "--context", 32, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", [("--kv", "int4"), ("--kv", "nonsense"), ("--prefill", 5), ("--rounds", 1)])
def test_a_sweep_takes_no_flag_that_it_would_not_heed(flag, tmp_path, capsys):
    assert "place" in said(capsys, 2, "compare", "--sweep", tmp_path / "sweep.toml", *flag)


def test_what_notes_of_a_stranger_could_steer_is_written_out(capsys):
    from scrimp.cli import output

    output.notes(["a\x1b[2Jb\nc"])
    assert capsys.readouterr().err == "note: a\\x1b[2Jb\\nc\n"


def test_side_cars_of_a_rule_are_within_the_size_of_a_packed_store(model, text, tmp_path):
    out = tmp_path / "out"
    rule = ["--rule", "*_proj*=int4:g32@llm_int8", "--calibrate", str(text), "--no-loss"]
    assert main(["compress", str(model), "-o", str(out), "--size", "26000", "--pack", *rule]) == 0
    assert sum(map(len, files(out).values())) <= 26000


def test_a_repacking_that_leaves_ranges_behind_says_so(model, text, tmp_path, capsys):
    fixed = ["--format", "int4:g32", "--activations", "static", "--calibrate", str(text), "--no-loss"]
    assert main(["compress", str(model), "-o", str(tmp_path / "fixed"), *fixed]) == 0
    capsys.readouterr()
    keep = ["compress", str(tmp_path / "fixed"), "--keep", "--no-loss"]
    assert main([*keep, "-o", str(tmp_path / "kept")]) == 0
    assert "ranges of activations are left behind" in capsys.readouterr().err
    assert main([*keep, "-o", str(tmp_path / "again"), "--activations", "static", "--calibrate", str(text)]) == 0
    assert "left behind" not in capsys.readouterr().err


def test_a_store_without_its_record(store, tmp_path, capsys):
    damaged = shutil.copytree(store, tmp_path / "damaged")
    (damaged / "scrimp.json").unlink()
    assert "without its scrimp.json" in said(capsys, 3, "inspect", damaged)


@pytest.mark.filterwarnings("error")
def test_a_signaling_nan_in_a_side_car_is_refused_without_a_warning(model, text, tmp_path):
    out = tmp_path / "turned"
    wish = ["--format", "int4:g32", "--method", "quip", "--calibrate", str(text), "--no-loss"]
    assert main(["compress", str(model), "-o", str(out), *wish]) == 0
    with open_store(out) as whole:
        name = next(each for each in whole.tensors if each.endswith(".rotation"))
        seed = whole.read(name).tobytes()
    held = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(held.replace(seed, bytes.fromhex("0100807f") + seed[4:]))
    with pytest.raises(Refused, match="no integers"):
        open_store(out)


def test_a_torch_whose_library_is_missing(store, tmp_path, monkeypatch, capsys):
    found = importlib.import_module

    def broken(name):
        if name == "torch":
            raise OSError(2, "cannot open shared object file", "libtorch_cpu.so")
        return found(name)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert "cannot be imported" in said(capsys, 1, "recover", store, "-o", tmp_path / "out")


class TestRecover:
    @pytest.fixture(autouse=True)
    def _torch(self):
        pytest.importorskip("torch")

    def arguments(self, store, out, model, text, *more):
        return ["recover", store, "-o", out, "--reference", model, "--calibrate", text, "--steps", 1, *more]

    def test_a_path_through_the_directory_itself(self, store, model, text, tmp_path):
        mine = shutil.copytree(store, tmp_path / "mine")
        out = mine / ".." / "mine"
        assert main([str(a) for a in self.arguments(mine, out, model, text, "--no-loss")]) == 0
        assert files(mine).keys() == files(store).keys()
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_a_new_directory_in_a_new_directory(self, store, model, text, tmp_path):
        out = tmp_path / "new" / "er"
        assert main([str(a) for a in self.arguments(store, out, model, text, "--no-loss")]) == 0
        assert files(out).keys() == files(store).keys()

    def test_a_place_that_cannot_be_written(self, store, model, text, capsys):
        before = files(store)
        said(capsys, 1, *self.arguments(store, store / "config.json" / "x", model, text, "--no-loss"))
        assert files(store) == before

    def test_a_text_too_short_to_measure_on_is_refused_before_the_training(self, store, model, text, tmp_path, capsys):
        (tmp_path / "short.txt").write_text("w1")
        out = tmp_path / "out"
        said(capsys, 3, *self.arguments(store, out, model, text, "--text", tmp_path / "short.txt"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["short.txt"]

    @pytest.mark.parametrize("notes", [5, "text", [5], {"a": "b"}])
    def test_notes_that_are_none(self, notes, store, model, text, tmp_path, capsys):
        mine = shutil.copytree(store, tmp_path / "mine")
        record = json.loads((mine / "scrimp.json").read_text())
        (mine / "scrimp.json").write_text(json.dumps(record | {"notes": notes}))
        assert "notes" in said(capsys, 3, *self.arguments(mine, tmp_path / "out", model, text, "--no-loss"))
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]

    def test_compress_says_first_what_a_recovery_cannot_learn_with(self, model, text, tmp_path, capsys):
        arguments = ["compress", model, "-o", tmp_path / "out", "--format", "int4", "--calibrate", text]
        assert "fixed ranges" in said(capsys, 2, *arguments, "--activations", "static", "--recover")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("held", [b"", b"garbage", bytes(100)])
    def test_a_checkpoint_that_is_none_says_how_to_go_on(self, held, store, model, text, tmp_path, capsys):
        (tmp_path / ".out.recovery").write_bytes(held)
        arguments = self.arguments(store, tmp_path / "out", model, text, "--no-loss")
        assert "--fresh" in said(capsys, 3, *arguments)
        assert main([*map(str, arguments), "--fresh"]) == 0
