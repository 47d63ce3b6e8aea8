"""What the original writes: its own likeliest tokens first, then drawn by its probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from networks_for_training import write_network

from scrimp.model import Model
from scrimp.sources import open_source
from scrimp.train import own_text
from scrimp.train.settings import Settings


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return open_source(write_network(tmp_path_factory.mktemp("own") / "network"))


def test_the_tokens_after_the_first_are_the_likeliest(original):
    text = own_text.write(original, 3, 16, seed=1)
    assert text.shape == (3, 16)
    model = Model(original, context=16)
    for row in text:
        for at in range(1, own_text.GREEDY + 1):
            assert row[at] == int(model.logits(row[:at])[-1].argmax())
    assert len({tuple(row) for row in text.tolist()}) == 3


def test_what_follows_is_drawn_by_its_probability():
    random = np.random.default_rng(0)
    p = np.array([0.5, 0.0, 0.3, 0.2])
    with np.errstate(divide="ignore"):
        logits = np.log(p).astype(np.float32) + 40
    drawn = np.bincount([own_text._drawn(logits, random) for _ in range(20_000)], minlength=4)
    assert drawn[1] == 0
    assert np.all(np.abs(drawn / 20_000 - p) <= 5 * np.sqrt(p * (1 - p) / 20_000))


def test_the_same_seed_gives_the_same_text_and_bos_stands_first(original):
    first, again, other = (own_text.write(original, 2, 12, bos=1, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first[:, 0] == 1).all()


def test_no_batch_is_begun_after_the_time_is_over(original, monkeypatch):
    monkeypatch.setattr(own_text, "BATCH", 2)
    ticks: list[int] = []
    assert own_text.write(original, 7, 8, seconds=0, tick=ticks.append).shape == (2, 8)
    assert sum(ticks) == 2 * 7
    assert own_text.write(original, 5, 8, seconds=3600).shape == (5, 8)


def test_fewer_windows_than_asked_for_are_recalled_as_they_are(tmp_path):
    kept = np.arange(24, dtype=np.int32).reshape(3, 8)
    own_text.remember(tmp_path / "text.npy", kept)
    for windows in (3, 10):
        np.testing.assert_array_equal(own_text.recalled(tmp_path / "text.npy", (windows, 8), 24), kept)
    for shape, rows in (((2, 8), 24), ((3, 9), 24), ((3, 8), 23)):
        assert own_text.recalled(tmp_path / "text.npy", shape, rows) is None


def test_only_a_run_by_the_clock_stops_writing_by_the_clock():
    assert Settings(minutes=60).writing_s == 540
    assert Settings(minutes=60, written=5).writing_s is None
    assert Settings(steps=9).writing_s is None
