"""A store that is not what was made never takes its place: damaged between writing and reopening, it exits 4."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model

import scrimp
from scrimp.cli.main import main
from scrimp.quantize import compress
from scrimp.quantize.as_made import logits_as_made


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def flip(store):
    """One bit in the middle of the weights."""
    raw = bytearray((store / "model.safetensors").read_bytes())
    header = int.from_bytes(raw[:8], "little")
    raw[8 + header + (len(raw) - header) // 2] ^= 1
    (store / "model.safetensors").write_bytes(raw)


def change_config(key, value):
    def change(store):
        config = json.loads((store / "config.json").read_text())
        (store / "config.json").write_text(json.dumps({**config, key: value}))

    return change


def forget_a_format(store):
    config = json.loads((store / "config.json").read_text())
    del config["quantization_config"]["tensors"]["lm_head.weight"]
    (store / "config.json").write_text(json.dumps(config))


@pytest.fixture
def damaged(monkeypatch):
    """Whatever ``damage`` does happens after the last byte was written and before the store is opened again."""

    def inject(damage):
        honest = compress.verify_reopened

        def late(store, *rest):
            damage(store)
            honest(store, *rest)

        monkeypatch.setattr(compress, "verify_reopened", late)

    return inject


def run(model, out, *flags):
    return main(["compress", str(model), "-o", str(out), "--format", "int4:g32", "--no-loss", "--json", *flags])


@pytest.mark.parametrize(("damage", "message"), [
    (flip, "is not what was written"),
    (change_config("rope_theta", 20000.0), "its logits differ by up to"),
    (change_config("rms_norm_eps", 0.1), "its logits differ by up to"),
    (forget_a_format, "lm_head.weight"),
])  # fmt: skip
def test_a_store_that_changed_before_it_was_reopened_exits_4_in_one_line(
    model, tmp_path, capsys, damaged, damage, message
):
    damaged(damage)
    assert run(model, tmp_path / "out") == 4
    error, hint = capsys.readouterr().err.splitlines()
    assert message in error
    assert "--fresh" in hint
    assert not (tmp_path / "out").exists()


def test_the_store_that_was_there_before_stays(model, tmp_path, damaged):
    assert run(model, tmp_path / "out") == 0
    before = (tmp_path / "out" / "scrimp.json").read_bytes()
    damaged(flip)
    assert run(model, tmp_path / "out") == 4
    assert (tmp_path / "out" / "scrimp.json").read_bytes() == before


def test_fresh_mends_it(model, tmp_path, damaged, monkeypatch):
    damaged(flip)
    assert run(model, tmp_path / "out") == 4
    monkeypatch.undo()
    assert run(model, tmp_path / "out") == 4, "the finished part on the disk is still another"
    assert run(model, tmp_path / "out", "--fresh") == 0
    with scrimp.open(tmp_path / "out") as opened:
        assert np.isfinite(opened.logits([1, 2])).all()


@pytest.mark.parametrize("format", ["f32", "int4z:g32", "mxfp4", "ternary", "binary:g32"])
def test_block_by_block_gives_the_logits_of_the_whole_network_bit_for_bit(model, tmp_path, format):
    scrimp.compress(model, tmp_path / "out", format=format)
    with scrimp.open(tmp_path / "out") as opened:
        tokens, made = logits_as_made(opened.program, opened.context, opened.source.read)
        assert made.shape == (8, opened.vocab_size)
        assert np.array_equal(opened.logits(tokens), made)


def test_logits_that_are_no_numbers_are_refused_before_anything_takes_its_place(tmp_path, capsys):
    loud = write_tiny_model(tmp_path / "loud")
    tensors = load_file(loud / "model.safetensors")
    tensors["lm_head.weight"] = np.sign(tensors["lm_head.weight"]) * np.float32(3e38)
    save_file(tensors, loud / "model.safetensors")
    assert main(["compress", str(loud), "-o", str(tmp_path / "out"), "--format", "f32", "--no-loss"]) == 3
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
