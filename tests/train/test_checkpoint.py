"""A checkpoint is a stranger's file like any other: what is odd about it is refused, and nothing of it used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from networks_for_training import words, write_network
from safetensors.numpy import load_file, save_file

import scrimp
from scrimp.errors import Refused
from scrimp.store.layout import MODEL_FILE
from scrimp.train import checkpoint
from scrimp.train.recover import recover
from scrimp.train.settings import Settings

TEXT = words(600)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a network, a store of it and the checkpoint of an unfinished recovery to ``out``."""
    place = tmp_path_factory.mktemp("interrupted")
    write_network(place / "network", num_hidden_layers=1)
    scrimp.compress(place / "network", place / "small", format="int2z:g32")

    class Stop:
        def start(self, what: str, total: float) -> None: ...
        def finish(self) -> None: ...
        def advance(self, amount: float = 1, note: str = "") -> None:
            if "→" in note and checkpoint.checkpoint_of(place / "out").exists() and amount:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(place, progress=Stop())
    return place


def go(place: Path, **options: object):
    return recover(
        place / "small", place / "out", Settings(steps=4), reference=str(place / "network"), calibrate=TEXT,
        measure=False, **options,
    )  # fmt: skip


@pytest.fixture
def arrays(interrupted: Path):
    """The checkpoint's arrays, to be changed; the file is put back afterwards."""
    path = checkpoint.checkpoint_of(interrupted / "out")
    kept = path.read_bytes()
    yield load_file(path)
    path.write_bytes(kept)


def state_of(arrays) -> dict[str, object]:
    return json.loads(arrays["state"].tobytes())


def put_state(arrays, **fields: object) -> None:
    arrays["state"] = np.frombuffer(json.dumps({**state_of(arrays), **fields}).encode(), np.uint8)


def name_of(arrays, beginning: str) -> str:
    return next(name for name in arrays if name.startswith(beginning))


def shorter(arrays):
    name = name_of(arrays, "value/scales/")
    arrays[name] = arrays[name][:-1].copy()


def missing(arrays):
    del arrays[name_of(arrays, "mean/vectors/")]


def infinite(arrays):
    arrays[name_of(arrays, "value/vectors/")][0] = np.inf


def negative(arrays):
    arrays[name_of(arrays, "square/vectors/")][0] = -1


def damaged_best(arrays):
    name = next(n for n in arrays if n.startswith("best/") and n.endswith(".scales"))
    arrays[name][:] = np.nan


def other_dtype(arrays):
    name = name_of(arrays, "square/scales/")
    arrays[name] = arrays[name].astype(np.float64)


STATES = {
    "a step below zero": {"step": -1}, "a step that is no number": {"step": "1"}, "no time": {"seconds": None},
    "a curve without points": {"curve": []}, "a curve beyond the step": {"curve": [[99, 0.0, 0.1]]},
    "a loss below zero": {"curve": [[0, 0.0, -1.0]]}, "a curve of words": {"curve": ["a"]},
    "an ending that is no text": {"ended": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    "damage", [shorter, missing, infinite, negative, damaged_best, other_dtype], ids=lambda f: f.__name__
)
def test_arrays_that_do_not_fit_are_refused(damage, arrays, interrupted):
    damage(arrays)
    save_file(arrays, checkpoint.checkpoint_of(interrupted / "out"))
    with pytest.raises(Refused):
        go(interrupted)
    assert not (interrupted / "out").exists()


@pytest.mark.parametrize("fields", STATES.values(), ids=STATES)
def test_a_state_that_says_nonsense_is_refused(fields, arrays, interrupted):
    put_state(arrays, **fields)
    save_file(arrays, checkpoint.checkpoint_of(interrupted / "out"))
    with pytest.raises(Refused):
        go(interrupted)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a pickle", b"\xff" * 64], ids=["empty", "pickle", "noise"])
def test_what_is_no_safetensors_file_is_refused(content, arrays, interrupted):
    checkpoint.checkpoint_of(interrupted / "out").write_bytes(content)
    with pytest.raises(Refused):
        go(interrupted)


def test_the_checkpoint_of_another_job_is_not_used(arrays, interrupted, tmp_path):
    put_state(arrays, fingerprint="another", curve="nonsense that would be refused")
    save_file(arrays, checkpoint.checkpoint_of(interrupted / "out"))
    report = go(interrupted)
    assert report.recovery.curve[0][0] == 0
    (interrupted / "out").rename(tmp_path / "done")


def test_fresh_starts_over_whatever_lies_there(arrays, interrupted, tmp_path):
    checkpoint.checkpoint_of(interrupted / "out").write_bytes(b"noise")
    go(interrupted, fresh=True)
    assert (interrupted / "out" / MODEL_FILE).exists()
    (interrupted / "out").rename(tmp_path / "done")
