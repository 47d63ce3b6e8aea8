"""The budget of coded bytes: what a survey predicts is what a packed store takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scrimp.calibrate import windows
from scrimp.errors import UsageError
from scrimp.quantize import survey
from scrimp.quantize.compress import compress
from scrimp.quantize.job import prepare
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store.coded import encode
from scrimp.store.open import directory_bytes, open_store
from scrimp.text.tokenizer import load


@pytest.fixture
def surveyed(network, text):
    with open_source(network) as source:
        tokenizer = load(source.tokenizer, rows=source.config["vocab_size"])
        calibration = windows.read(tokenizer, 32, text.read_text(), windows=4)
        shapes = {name: info.shape for name, info in source.tensors.items()}
        yield source, shapes, survey.survey(source, shapes, calibration)


def test_finer_steps_take_more_bytes_and_lose_less(surveyed):
    _, _, found = surveyed
    for one in found.values():
        assert len(one.offers) > survey.PER_OCTAVE
        sizes, errors = [o.nbytes for o in one.offers], [o.error for o in one.offers]
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)


def test_what_is_kept_takes_what_it_takes_coded(surveyed):
    source, _, found = surveyed
    for name, one in found.items():
        assert one.kept_bytes == len(encode(source.read(name)))


def test_a_survey_is_kept_and_found_again(surveyed, tmp_path):
    _, shapes, found = surveyed
    path = tmp_path / "there" / "survey.json"
    survey.remember(path, found)
    assert survey.recall(path, shapes) == found


@pytest.mark.parametrize("change", [
    lambda d: d.popitem(), lambda d: next(iter(d.values())).pop("offers"),
    lambda d: next(iter(d.values())).update(kept_bytes=-1), lambda d: next(iter(d.values())).update(probe_error="x"),
    lambda d: next(iter(d.values()))["offers"].append({"bits": 1}), lambda d: d.update(strange=1),
])  # fmt: skip
def test_a_survey_that_is_no_survey_is_made_again(surveyed, tmp_path, change):
    _, shapes, found = surveyed
    path = tmp_path / "survey.json"
    survey.remember(path, found)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert survey.recall(path, shapes) is None


@pytest.mark.parametrize("text_of_it", ["", "[]", "{", '{"a": 3}', "[" * 100000])
def test_so_is_what_is_not_even_json(surveyed, tmp_path, text_of_it):
    _, shapes, _ = surveyed
    (tmp_path / "survey.json").write_text(text_of_it)
    assert survey.recall(tmp_path / "survey.json", shapes) is None
    assert survey.recall(tmp_path / "missing.json", shapes) is None


def test_a_packed_size_is_kept_and_used(network, text, tmp_path):
    compress(network, tmp_path / "int3", format="int3:g32", embedding="int3:g32", pack=True)
    limit = directory_bytes(tmp_path / "int3") + 6000
    report = compress(network, tmp_path / "out", size=limit, pack=True, calibrate=text, calibrate_windows=4)
    assert 0.9 * limit < report.file_bytes <= limit
    with open_store(tmp_path / "out") as source:
        assert source.packed
        assert {format.name for format in source.formats.values()} >= {"int8:row"}
    assert any("expected KL" in note for note in report.notes)


def test_a_packed_loss_is_planned(network, text):
    jobs = [prepare(network, Wish(kl=kl, pack=True, calibrate=text, calibrate_windows=4)) for kl in (0.001, 0.1)]
    for job in jobs:
        job.source.close()
    fine, coarse = (job.expected_bytes for job in jobs)
    assert fine is not None
    assert coarse is not None
    assert coarse < fine


def test_a_method_has_no_place_there(network, text):
    with pytest.raises(UsageError, match="ecsq"):
        prepare(network, Wish(size="1MB", pack=True, method="gptq", calibrate=text))


def test_estimated_bytes_of_a_rate_are_the_coders(surveyed):
    """A sample of rows stands for all, so on small matrices the tables weigh: within a tenth."""
    from scrimp.quantize import ecsq
    from scrimp.quantize.decoded import decode

    source, _, found = surveyed
    name = max(found, key=lambda n: np.prod(source.tensors[n].shape))
    offer = found[name].offers[len(found[name].offers) // 2]
    tensor = ecsq.quantize(decode(source.read(name)), survey.FORMAT, None, bits=offer.bits).tensor
    assert abs(len(encode(tensor)) / offer.nbytes - 1) < 0.1
