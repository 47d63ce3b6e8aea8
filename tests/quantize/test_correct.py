"""A loss that was asked for of a packed store is the loss that it has."""

from __future__ import annotations

import pytest
from tests.cli.tiny_model import write_tiny_model

import scrimp
from scrimp.errors import GoalNotMet
from scrimp.quantize import correct
from scrimp.quantize.correct import stored_divergence
from scrimp.sources import open_source


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("correct") / "tiny")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("goal", [1e-4, 1e-2])
def test_the_store_loses_no_more_than_was_asked_for(model, tmp_path, goal):
    report = scrimp.compress(model, tmp_path / "out", kl=goal, pack=True)
    with open_source(model) as source:
        assert 0 < stored_divergence(source, tmp_path / "out") <= goal
    assert any("measured on a text that calibrated nothing" in note for note in report.notes)


def test_a_store_that_misses_is_made_again_for_less(model, tmp_path, monkeypatch):
    planned, told = [], iter([0.04, 0.015, 0.009])
    monkeypatch.setattr(correct, "stored_divergence", lambda source, store: next(told))
    prepare = correct.prepare

    def prepared(name, wish, **more):
        planned.append(wish.kl)
        return prepare(name, wish, **more)

    monkeypatch.setattr(correct, "prepare", prepared)
    report = scrimp.compress(model, tmp_path / "out", kl=0.01, pack=True)
    assert planned == [pytest.approx(0.01 / 4), pytest.approx(0.01 / 4 / 1.5)]
    assert any("within 0.01; planned for" in note for note in report.notes)


def test_a_loss_that_is_not_reached_is_an_error_and_what_was_made_stays(model, tmp_path, monkeypatch):
    monkeypatch.setattr(correct, "stored_divergence", lambda source, store: 0.5)
    with pytest.raises(GoalNotMet, match=r"loses 0\.5000 nats; 0\.01 were asked for"):
        scrimp.compress(model, tmp_path / "out", kl=0.01, pack=True)
    with scrimp.open(tmp_path / "out") as made:
        assert made.vocab_size
