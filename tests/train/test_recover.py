"""Recovery as a whole, on a tiny network: what falls, what stays, and what an interruption costs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from networks_for_training import words, write_network

import scrimp
from scrimp.errors import Refused, UsageError
from scrimp.models.sidecars import owner
from scrimp.progress import SILENT, Progress
from scrimp.sources import open_source
from scrimp.store.layout import MODEL_FILE
from scrimp.store.open import open_store
from scrimp.tensors import QTensor
from scrimp.train import checkpoint, own_text, student
from scrimp.train.recover import program_of_store, recover
from scrimp.train.settings import RATES, Settings, share_of_rate

STEPS = 12
TEXT = words(600)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("training") / "network", tie_word_embeddings=True)


@pytest.fixture
def small(original: Path, tmp_path: Path) -> Path:
    scrimp.compress(
        original, tmp_path / "small", format="int2z:g32", rules=["*.0.mlp.*=int4:tensor", "*.v_proj=ternary"]
    )
    return tmp_path / "small"


def go(small: Path, original: Path, out: Path, *, progress: Progress = SILENT, **fields: object):
    settings = Settings(**{"steps": STEPS, **fields})
    return recover(small, out, settings, reference=str(original), calibrate=TEXT, measure=False, progress=progress)


def codes_of(store: Path) -> dict[str, np.ndarray]:
    with open_store(store) as opened:
        return {name: opened.read(name).codes() for name in opened.formats}


def errors_of(store: Path) -> dict[str, float]:
    report = json.loads((store / "scrimp.json").read_text())["report"]
    return {tensor["name"]: tensor["error"] for tensor in report["tensors"]}


class Interrupt:
    """A progress that is interrupted after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, what: str, total: float) -> None: ...

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt

    def finish(self) -> None: ...


def test_the_loss_falls_on_windows_never_learned_from_and_on_other_text(small, original, tmp_path):
    other = words(300, seed=9)
    before = scrimp.evaluate(small, other, reference=original, context=32)
    report = recover(
        small, tmp_path / "out", Settings(steps=STEPS), reference=str(original), calibrate=TEXT, text=other
    )
    assert report.recovery.after < report.recovery.before
    assert report.loss.divergence.kl_mean < before.divergence.kl_mean
    assert json.loads((tmp_path / "out" / "scrimp.json").read_text())["report"]["recovery"]["gained"] is True


def test_codes_and_bytes_stay_and_scales_do_not(small, original, tmp_path):
    go(small, original, tmp_path / "out")
    assert (tmp_path / "out" / MODEL_FILE).stat().st_size == (small / MODEL_FILE).stat().st_size
    before, after = codes_of(small), codes_of(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with open_store(small) as old, open_store(tmp_path / "out") as new:
        moved = [name for name in old.formats if not np.array_equal(old.read(name).scales, new.read(name).scales)]
        norms = [n for n in old.tensors if n not in old.formats and not np.array_equal(old.read(n), new.read(n))]
        assert set(moved) == set(old.formats) - {"model.embed_tokens.weight"}
        assert len(norms) == len(old.tensors) - len(old.formats)


def test_ends_learn_when_asked_to(small, original, tmp_path):
    go(small, original, tmp_path / "out", ends=True)
    name = "model.embed_tokens.weight"
    with open_store(small) as old, open_store(tmp_path / "out") as new:
        assert not np.array_equal(old.read(name).scales, new.read(name).scales)


def test_codes_learn_when_asked_to(small, original, tmp_path):
    report = go(small, original, tmp_path / "out", codes=True, rates={**RATES, "codes": 0.02})
    before, after = codes_of(small), codes_of(tmp_path / "out")
    assert report.recovery.gained
    assert sum(int((before[name] != after[name]).sum()) for name in before) > 0
    assert (tmp_path / "out" / MODEL_FILE).stat().st_size == (small / MODEL_FILE).stat().st_size


@pytest.mark.parametrize("fields", [{}, {"codes": True, "block_steps": 3}], ids=["codes stay", "codes and blocks"])
@pytest.mark.parametrize("after", [3, 10])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(fields, after, small, original, tmp_path):
    whole = go(small, original, tmp_path / "whole", **fields)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        go(small, original, out, **fields, progress=Interrupt(after))
    assert checkpoint.checkpoint_of(out).exists()
    assert not out.exists()
    resumed = go(small, original, out, **fields)
    assert (out / MODEL_FILE).read_bytes() == (tmp_path / "whole" / MODEL_FILE).read_bytes()
    assert [p[::2] for p in resumed.recovery.curve] == [p[::2] for p in whole.recovery.curve]
    assert not checkpoint.checkpoint_of(out).exists()


#: A matrix, and what stands beside it.
BESIDE = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(params=["quip+rtn", "lowrank:2+rtn", "llm_int8+rtn"])
def beside(request: pytest.FixtureRequest, original: Path, tmp_path: Path) -> Path:
    scrimp.compress(original, tmp_path / "beside", format="int2z:g32", method=request.param, calibrate=TEXT,
                    calibrate_prefix="original")  # fmt: skip
    return tmp_path / "beside"


def test_a_matrix_learns_beside_its_side_car(beside, original, tmp_path):
    slow = {kind: rate / 4 for kind, rate in RATES.items()}
    report = go(beside, original, tmp_path / "out", steps=24, codes=True, rates={**slow, "codes": 0.01})
    assert report.recovery.gained
    before, after = codes_of(beside), codes_of(tmp_path / "out")
    assert sum(int((before[name] != after[name]).sum()) for name in before) > 0
    with open_store(beside) as old, open_store(tmp_path / "out") as new:
        assert list(old.tensors) == list(new.tensors)
        assert old.formats == new.formats
        for name in (name for name in old.tensors if owner(name) is not None and name not in old.formats):
            np.testing.assert_array_equal(old.read(name), new.read(name))
    assert (tmp_path / "out" / MODEL_FILE).stat().st_size == (beside / MODEL_FILE).stat().st_size


def test_errors_are_told_with_what_stands_beside(beside, original, tmp_path):
    go(beside, original, tmp_path / "out", rates=dict.fromkeys(RATES, 30.0))
    before, after = (errors_of(store) for store in (beside, tmp_path / "out"))
    assert set(before) == set(after)
    assert all(after[name] == pytest.approx(before[name], rel=1e-5) for name in before)


def test_latent_codes_begin_where_the_rotated_original_lies(original, tmp_path):
    """A quarter of a code off on average, not at the code, as where the original says nothing."""
    scrimp.compress(original, tmp_path / "beside", format="int4:g32", method="quip+rtn", calibrate=TEXT)
    with open_store(tmp_path / "beside") as store, open_source(original) as source:
        program, sidecars = program_of_store(store)
        learner = student.load(store, program, sidecars, original=source)
        latent = learner.parameters()["codes"][BESIDE].detach().numpy()
        assert np.abs(latent - store.read(BESIDE).codes()).mean() == pytest.approx(0.25, abs=0.03)


def test_an_interrupted_run_beside_side_cars_goes_on(beside, original, tmp_path):
    go(beside, original, tmp_path / "whole", codes=True, block_steps=2)
    with pytest.raises(KeyboardInterrupt):
        go(beside, original, tmp_path / "out", codes=True, block_steps=2, progress=Interrupt(6))
    go(beside, original, tmp_path / "out", codes=True, block_steps=2)
    assert (tmp_path / "out" / MODEL_FILE).read_bytes() == (tmp_path / "whole" / MODEL_FILE).read_bytes()


def test_block_by_block_brings_it_nearer_before_all_learn_together(small, original, tmp_path):
    report = go(small, original, tmp_path / "out", steps=1, block_steps=20)
    start, blocks, _ = report.recovery.curve
    assert start[0] == blocks[0] == 0
    assert blocks[2] < start[2]
    before, after = codes_of(small), codes_of(tmp_path / "out")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_recovery_that_makes_it_worse_changes_nothing(small, original, tmp_path):
    report = go(small, original, tmp_path / "out", rates=dict.fromkeys(RATES, 30.0))
    assert not report.recovery.gained
    assert (tmp_path / "out" / MODEL_FILE).read_bytes() == (small / MODEL_FILE).read_bytes()
    assert any("gained nothing" in note for note in report.notes)


def test_a_directory_can_be_recovered_in_place(small, original):
    before = (small / MODEL_FILE).read_bytes()
    report = go(small, original, small)
    assert report.recovery.gained
    assert (small / MODEL_FILE).read_bytes() != before
    assert "rtn+recover" in (small / "scrimp.json").read_text()


def test_the_original_writes_text_to_learn_from(small, original, tmp_path):
    report = go(small, original, tmp_path / "out", written=3)
    assert any("3 windows that the original wrote itself" in note for note in report.notes)


def test_what_the_original_wrote_is_kept_and_checked(small, original, tmp_path, monkeypatch):
    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "home"))
    first = go(small, original, tmp_path / "first", written=3)
    (path,) = (tmp_path / "home" / "written").iterdir()
    kept, calls, write = np.load(path), [], own_text.write
    monkeypatch.setattr(own_text, "write", lambda *a, **k: calls.append(1) or write(*a, **k))
    again = go(small, original, tmp_path / "again", written=3)
    assert not calls
    assert [point[::2] for point in again.recovery.curve] == [point[::2] for point in first.recovery.curve]
    for damaged in (b"", b"stranger", path.read_bytes()[:-4]):
        path.write_bytes(damaged)
        go(small, original, tmp_path / "damaged", written=3)
        np.testing.assert_array_equal(np.load(path), kept)
    np.save(path, kept + 10**6)
    go(small, original, tmp_path / "beyond", written=3)
    np.testing.assert_array_equal(np.load(path), kept)
    assert len(calls) == 4


def test_the_original_is_found_by_its_name_and_checksum(small, original, tmp_path):
    moved = original.rename(tmp_path / "network")
    try:
        report = recover(small, tmp_path / "out", Settings(steps=1), calibrate=TEXT, measure=False)
        assert not any("checksum" in note for note in report.notes)
        (moved / "extra.txt").write_text("another file, another model")
        with pytest.raises(Refused, match="network, which is not where"):
            recover(small, tmp_path / "other", Settings(steps=1), calibrate=TEXT, measure=False)
    finally:
        (moved / "extra.txt").unlink()
        moved.rename(original)


def test_an_original_with_another_vocabulary_is_refused(small, tmp_path):
    other = write_network(tmp_path / "other", vocab_size=40)
    with pytest.raises(Refused, match="vocabulary of 40"):
        go(small, other, tmp_path / "out")


def test_a_text_too_short_is_refused(small, original, tmp_path):
    with pytest.raises(Refused, match="two windows"):
        recover(small, tmp_path / "out", Settings(steps=1), reference=str(original), calibrate=words(40))
    assert not (tmp_path / "out").exists()


def test_what_is_no_store_is_refused(original, tmp_path):
    with pytest.raises(Refused, match="no compressed model"):
        go(original, original, tmp_path / "out")


@pytest.mark.parametrize("fields", [{"minutes": 0}, {"minutes": float("nan")}, {"steps": 0}, {"written": -1}])
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(UsageError, match="out of range"):
        Settings(**fields)


def test_the_rate_rises_then_falls():
    rates = [share_of_rate(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(1)
    assert all(np.diff(rates[: top + 1]) > 0)
    assert all(np.diff(rates[top:]) < 0)


def test_every_matrix_of_the_store_is_read_again_as_it_was_learned(small, original, tmp_path):
    go(small, original, tmp_path / "out")
    with open_source(tmp_path / "out") as opened:
        for name in opened.tensors:
            found = opened.read(name)
            assert np.isfinite(found.dequantize() if isinstance(found, QTensor) else found).all()
