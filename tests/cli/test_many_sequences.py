"""Several sequences as a Python user has them, on a whole tiny model."""

import numpy as np
import pytest
from tiny_model import write_tiny_model

import scrimp
from scrimp import _core
from scrimp.errors import Full, UsageError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_what_a_user_does_with_them(path):
    prompt = [1, 5, 7, 3, 9, 2]
    with scrimp.open(path, sequences=2, threads=1) as model:
        expected = model.logits([*prompt, 4])
        a = model.sequence(prompt)
        (row,) = model.extend([(a, prompt[a.length :])])
        assert np.array_equal(row, expected[5:6])
        b = a.fork()
        rows = model.extend([(a, [4]), (b, [8])], wanted=[1, 0])
        assert [r.shape for r in rows] == [(1, model.vocab_size), (0, model.vocab_size)]
        assert np.array_equal(rows[0], expected[6:])
        with pytest.raises(Full, match="All 2 sequences are open"):
            model.sequence()
        a.drop()
        again = model.sequence([*prompt, 4, 6])
        assert again.tokens == [*prompt, 4]
        assert np.array_equal(model.logits([*prompt, 4]), expected), "the model's own sequence is as before"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sequences": -1}, "-1 sequences are out of range"), ({"sequences": 5000}, "5,000 sequences are out of range"),
     ({"cache_bytes": 0}, "A cache of 0 bytes")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings, message, path):
    with pytest.raises(UsageError, match=message):
        scrimp.open(path, **settings)


def test_a_cache_of_less_than_a_page_is_full_at_once(path):
    with scrimp.open(path, sequences=1, cache_bytes=10) as model:
        sequence = model.sequence()
        with pytest.raises(Full, match="1 more pages of the key/value cache are needed; 0 of 0"):
            model.extend([(sequence, [1])])
        with pytest.raises(Full):
            model.step([1], 0)


def test_a_cache_that_no_machine_has_is_refused(path, monkeypatch):
    def refuse(**settings):
        raise MemoryError

    monkeypatch.setattr(_core, "Engine", refuse)
    with pytest.raises(UsageError, match=r"no memory for 4,001 sequences of [\d,]+ tokens"):
        scrimp.open(path, sequences=4000)
