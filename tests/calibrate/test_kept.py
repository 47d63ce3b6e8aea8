"""Statistics on the disk: the same bits as measured, and damaged files are as if they were not there."""

import shutil
from dataclasses import fields

import numpy as np
import pytest
from networks import write_network

from scrimp.calibrate import kept as kept_file
from scrimp.calibrate.kept import Kept, file_bytes, kept_at
from scrimp.calibrate.split import split
from scrimp.calibrate.walk import Walk
from scrimp.models import build
from scrimp.quantize.compress import run
from scrimp.quantize.job import kept_statistics, prepare
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source

HOW = {"format": "int3:g32", "method": "gptq", "calibrate_windows": 5, "calibrate_prefix": "original"}


@pytest.fixture
def runs(monkeypatch):
    """How often a block ran."""
    found, real = [], Walk.run

    def counted(self, block, *arguments, **options):
        found.append(block)
        return real(self, block, *arguments, **options)

    monkeypatch.setattr(Walk, "run", counted)
    return found


def compressed(network, out, text, statistics, **change):
    with (job := prepare(network, Wish(calibrate=text, **{**HOW, **change}))).source:
        report = run(job, out, statistics=statistics)
    return (out / "model.safetensors").read_bytes(), report


def test_a_second_compression_runs_nothing_and_is_the_same_as_alone(network, tmp_path, text, runs):
    there = tmp_path / "statistics"
    compressed(network, tmp_path / "first", text, there, format="int4:g32")
    assert runs
    runs.clear()
    shared, report = compressed(network, tmp_path / "second", text, there)
    assert not runs
    alone, told = compressed(network, tmp_path / "alone", text, None)
    assert runs
    assert shared == alone
    assert (report.tensors, report.notes) == (told.tensors, told.notes)


@pytest.mark.parametrize("method", ["awq+gptq", "quip+gptq", "gptq+swap", "adaround", "rtn:clip", "ecsq:3"])
def test_every_kind_of_method_makes_the_same_of_kept_statistics(method, network, tmp_path, text):
    how = {"method": method, "format": "int8:row" if "ecsq" in method else "int3:g32"}
    for out in ("first", "second"):
        compressed(network, tmp_path / out, text, tmp_path / "statistics", **how)
    alone, _ = compressed(network, tmp_path / "alone", text, None, **how)
    assert (tmp_path / "first/model.safetensors").read_bytes() == alone
    assert (tmp_path / "second/model.safetensors").read_bytes() == alone


def test_a_block_that_is_missing_is_measured_after_those_before_it(network, tmp_path, text, runs):
    alone, _ = compressed(network, tmp_path / "alone", text, there := tmp_path / "statistics")
    files = sorted(there.rglob("*.statistics"))
    files[3].unlink()
    runs.clear()
    found, _ = compressed(network, tmp_path / "out", text, there)
    assert len(runs) == 5  # the embedding has no file
    assert found == alone
    assert files[3].exists()


def cut_off(raw):
    return raw[:-1]


def longer(raw):
    return raw + b"\0"


def flipped(raw):
    return raw[:-1000] + bytes([raw[-1000] ^ 1]) + raw[-999:]


def of_another_key(raw):
    return raw[:32] + b"0" * 64 + raw[96:]


def enormous(raw):
    return raw[:104] + b"\xff" * 7 + b"\x7f" + raw[112:]


@pytest.mark.parametrize(
    "damage", [cut_off, longer, flipped, of_another_key, enormous, lambda raw: b"", lambda raw: b"\x80\x04."]
)
def test_a_damaged_file_is_measured_again(damage, network, tmp_path, text, runs):
    alone, _ = compressed(network, tmp_path / "alone", text, there := tmp_path / "statistics")
    last = sorted(there.rglob("*.statistics"))[-1]
    raw = last.read_bytes()
    last.write_bytes(damage(raw))
    runs.clear()
    assert compressed(network, tmp_path / "out", text, there)[0] == alone
    assert runs
    assert last.read_bytes() == raw


def test_another_text_or_model_finds_nothing(network, tmp_path, text, runs):
    there = tmp_path / "statistics"
    compressed(network, tmp_path / "first", text, there)
    other = tmp_path / "other.txt"
    other.write_text(" ".join(reversed(text.read_text().split())))
    for model, words in ((network, other), (write_network(tmp_path / "model", rms_norm_eps=1e-3), text)):
        runs.clear()
        found, _ = compressed(model, tmp_path / "out", words, there)
        assert runs
        assert found == compressed(model, tmp_path / "again", words, None)[0]


def test_a_quantized_prefix_keeps_nothing(network, tmp_path, text):
    compressed(network, tmp_path / "out", text, there := tmp_path / "statistics", calibrate_prefix="quantized")
    assert not there.exists()


def test_a_file_holds_every_field_and_no_more_than_was_told(network, tmp_path):
    with open_source(network) as source:
        _, program = build(source.config)
        kept, blocks = Kept(tmp_path / "kept", "k" * 64), split(program)
        walk = Walk(np.random.default_rng(0).integers(0, 50, (5, 32)).astype(np.int32))
        vectors = {name: source.read(name) for name in program.vectors}
        for at, block in enumerate(blocks):
            matrices = {name: source.read(name) for name in block.runs}
            measured = walk.run(block, matrices, vectors, collect=True, move=True)
            assert kept.get(at, block) is None
            kept.put(at, block, measured)
            assert (tmp_path / f"kept/{at:05}.statistics").stat().st_size <= file_bytes(block)
            found = kept.get(at, block)
            assert found.keys() == measured.keys()
            for name, statistics in measured.items():
                for field in fields(statistics):
                    one, other = getattr(found[name], field.name), getattr(statistics, field.name)
                    assert np.array_equal(one, other), field.name
                twins = [twin for twin in measured if measured[twin] is statistics]
                assert all(found[twin] is found[name] for twin in twins)


def test_too_little_room_does_without(network, tmp_path, text, monkeypatch):
    with open_source(network) as source:
        blocks = split(build(source.config)[1])
    need = sum(map(file_bytes, blocks))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 * need))
    assert kept_at(tmp_path, "key", blocks) is not None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4 * need - 4))
    assert kept_at(tmp_path, "key", blocks) is None
    compressed(network, tmp_path / "out", text, tmp_path / "statistics")
    assert not list((tmp_path / "statistics").rglob("*.statistics"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(kept_file, "MOST_BYTES", need - 1)
    assert kept_at(tmp_path, "key", blocks) is None
    (tmp_path / "file").write_text("")
    assert kept_at(tmp_path / "file", "key", blocks) is None


def test_a_disk_that_fills_up_changes_nothing(network, tmp_path, text, monkeypatch):
    real = Kept._parts

    def full(self, block, statistics):
        yield next(real(self, block, statistics))
        raise OSError(28, "No space left on device")

    alone, _ = compressed(network, tmp_path / "alone", text, None)
    monkeypatch.setattr(Kept, "_parts", full)
    assert compressed(network, tmp_path / "out", text, tmp_path / "statistics")[0] == alone
    assert not [path for path in (tmp_path / "statistics").rglob("*") if path.is_file()]


def test_jobs_without_calibration_keep_nothing(network, tmp_path):
    with (job := prepare(network, Wish(format="int4:g32"))).source:
        assert kept_statistics(job, tmp_path) is None
