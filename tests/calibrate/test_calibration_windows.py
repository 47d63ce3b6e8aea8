"""What is read for calibration, what is said of it, and what is refused before anything is written."""

import inspect
import json

import numpy as np
import pytest
from networks import WORDS

from scrimp.calibrate.windows import LENGTH, read
from scrimp.cli.compress import compress as command
from scrimp.cli.main import main
from scrimp.errors import UsageError
from scrimp.measure.windows import cut
from scrimp.quantize.compress import compress
from scrimp.quantize.wish import Wish


class Letters:
    """A tokenizer of bytes."""

    add_bos, bos_id = False, None

    def encode(self, text, add_bos=True):
        return list(text.encode())


class LettersWithBos(Letters):
    add_bos, bos_id = True, 256


LONG = "".join(np.random.default_rng(0).choice(list("abcdefgh "), 100_000))


def test_windows_are_spread_over_the_text_and_are_whole_windows_of_it():
    windows = read(Letters(), 512, LONG, windows=8).windows
    every = cut(list(LONG.encode()), 512).tokens
    at = [int(np.flatnonzero((every == window).all(axis=1))[0]) for window in windows]
    assert at == [0, 24, 48, 73, 97, 121, 146, 170]


def test_a_bos_begins_every_window_where_the_model_has_one():
    windows = read(LettersWithBos(), 512, LONG, windows=8).windows
    assert (windows[:, 0] == 256).all()
    assert (windows[:, 1:] < 256).all()


def test_windows_are_no_longer_than_the_network_can_read():
    assert read(Letters(), 64, LONG, windows=2).windows.shape == (2, 64)
    assert read(Letters(), 10**6, LONG, windows=2).windows.shape == (2, LENGTH)


def test_the_shipped_text_is_not_the_one_that_losses_are_measured_on():
    from scrimp.measure.windows import calibration_text, default_text

    tokens = Letters().encode(calibration_text())
    calibration = read(Letters(), 512)
    assert calibration.windows[0].tolist() == tokens[:512]
    assert "the calibration text that ships with scrimp" in calibration.notes[0]
    lines = [{line for line in text.splitlines() if len(line) > 40} for text in (calibration_text(), default_text())]
    assert len(lines[0]) > 500
    assert not lines[0] & lines[1]


def test_fewer_windows_than_asked_for_are_said():
    assert "calibrated on 195 windows of 512 tokens" in read(Letters(), 512, LONG, windows=500).notes[0]
    assert "(the text has no more; 500 were asked for)" in read(Letters(), 512, LONG, windows=500).notes[0]


def test_a_text_the_tokenizer_does_not_know_is_said():
    assert any("hardly knows" in note for note in read(Letters(), 512, "a" * 5000).notes)
    assert not any("hardly knows" in note for note in read(Letters(), 512, LONG).notes)


def test_other_tokens_and_another_prefix_are_another_calibration():
    found = {
        read(Letters(), 512, text, windows=4, prefix=prefix).identity
        for text in (LONG, LONG[1:])
        for prefix in ("quantized", "original", "joint")
    }
    assert len(found) == 6


@pytest.mark.parametrize("count", [0, -1, 10**9])
def test_numbers_of_windows_out_of_range_are_refused(count):
    with pytest.raises(UsageError, match="calibration windows are out of range"):
        read(Letters(), 512, LONG, windows=count)


def test_an_unknown_prefix_is_refused():
    with pytest.raises(UsageError, match="'best' is no prefix"):
        read(Letters(), 512, LONG, prefix="best")


def call(network, tmp_path, *arguments):
    return main(["compress", str(network), "-o", str(tmp_path / "out"), "--format", "int4:g32", *map(str, arguments)])


def refused(tmp_path, capsys):
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    return errors[0]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "0 tokens, fewer than one window"),
        (b"w1 w2 w3", "3 tokens, fewer than one window of 32"),
        (b"\xff\xfe\x00\x01" * 500, "is not UTF-8 text"),
    ],
    ids=["empty", "short", "binary"],
)
def test_a_text_that_is_none_is_refused_before_anything_is_written(raw, words, stand_in, network, tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(raw)
    assert call(network, tmp_path, "--method", "stand-in", "--calibrate", path) == 3
    assert words in refused(tmp_path, capsys)


def test_a_text_that_is_not_there_is_refused(stand_in, network, tmp_path, capsys):
    assert call(network, tmp_path, "--method", "stand-in", "--calibrate", tmp_path / "nowhere.txt") == 1
    assert "nowhere.txt" in refused(tmp_path, capsys)


def test_a_text_for_a_method_that_reads_none_is_refused(network, text, tmp_path, capsys):
    assert call(network, tmp_path, "--calibrate", text) == 2
    assert "nothing to calibrate" in refused(tmp_path, capsys)


@pytest.mark.parametrize("count", ["0", "-3", "many", "99999999"])
def test_windows_that_are_no_number_are_refused(count, stand_in, network, tmp_path, capsys):
    assert call(network, tmp_path, "--method", "stand-in", "--calibrate-windows", count) == 2
    refused(tmp_path, capsys)


def test_a_prefix_that_is_none_is_refused(stand_in, network, tmp_path, capsys):
    assert call(network, tmp_path, "--method", "stand-in", "--calibrate-prefix", "best") == 2
    assert refused(tmp_path, capsys) == "error: 'best' is no prefix."


def test_the_joint_prefix_can_be_asked_for(network, text, tmp_path, capsys):
    arguments = ("--method", "gptq", "--calibrate", text, "--no-loss", "--calibrate-prefix", "joint")
    assert call(network, tmp_path, *arguments) == 0
    compress(network, tmp_path / "other", format="int4:g32", method="gptq", calibrate=text, calibrate_prefix="joint")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "other"))
    assert first == second


def test_the_report_says_what_was_calibrated_on(stand_in, network, text, tmp_path, capsys):
    code = call(network, tmp_path, "--method", "stand-in", "--calibrate", text, "--no-loss", "--json")
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["notes"][0].startswith("calibrated on 12 windows of 32 tokens from ")
    record = json.loads((tmp_path / "out" / "scrimp.json").read_text())
    assert record["notes"] == document["notes"]
    assert [t.get("output_error") for t in record["report"]["tensors"]] == [
        t.get("output_error") for t in document["tensors"]
    ]
    assert sum("output_error" in t for t in document["tensors"]) == len(document["tensors"]) - 1
    assert len(WORDS) == 50


def test_help_lists_the_flags_and_every_method(capsys):
    from scrimp.quantize.methods import METHODS, REWRITES

    assert main(["compress", "--help"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "--calibrate-windows" in words
    parts = {part for name in METHODS for part in name.split("+")} | REWRITES.keys()
    assert all(part in words for part in parts)


def test_the_command_has_the_default_of_a_wish():
    assert inspect.signature(command).parameters["calibrate_prefix"].default == Wish(keep=True).calibrate_prefix
