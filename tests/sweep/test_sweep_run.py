"""A sweep runs its cells, survives those that fail, remembers what it found, and gives the same numbers anywhere."""

import json
import math
import os
from dataclasses import asdict, replace

import pytest
from tiny_model import write_text, write_tiny_model

import scrimp
from scrimp.calibrate.walk import Walk
from scrimp.errors import ScrimpError
from scrimp.measure.evaluate import evaluate
from scrimp.sweep import cell as cells
from scrimp.sweep import cluster
from scrimp.sweep.cell import Cell, Loss, Result, from_json, work
from scrimp.sweep.file import read
from scrimp.sweep.journal import Journal
from scrimp.sweep.run import run, seconds_left

SWEEP = """
model = "tiny"
[grid]
formats = ["int4:g32", "mxfp4"]
methods = ["rtn", "gptq"]
[calibration]
text = "calibration.txt"
windows = 2
[evaluation]
text = "text.txt"
context = 32
[[row]]
name = "too narrow for its rule"
format = "int4"
rules = ["*.nothing=int8"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("sweep")
    write_tiny_model(where / "tiny")
    write_text(where / "text.txt", 100)
    write_text(where / "calibration.txt", 400, seed=3)
    (where / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    return where


@pytest.fixture(scope="module")
def alone(folder):
    with Journal(folder / "alone.jsonl") as journal:
        return run(read(folder / "sweep.toml"), journal, scratch=folder / "unfinished")


def timeless(results):
    """As text: a NaN is not equal to another."""
    return [repr(replace(result, seconds=0.0)) for result in results]


def test_every_cell_is_what_compress_and_evaluate_say_of_it(folder, alone, tmp_path):
    sweep = read(folder / "sweep.toml")
    for cell, result in list(zip(sweep.cells, alone, strict=True))[1:4:2]:
        wish = asdict(cell.wish)
        report = scrimp.compress(folder / "tiny", tmp_path / "out", **wish)
        found = evaluate(tmp_path / "out", folder / "text.txt", reference=folder / "tiny", context=32).to_json()
        assert result.file_bytes == report.file_bytes
        assert (result.loss.kl_mean, result.loss.ppl) == (found["kl_mean"], found["ppl"])
        assert result.seconds > 0


def test_cells_measure_an_original_prefix_once_and_are_the_same_as_alone(folder, alone, tmp_path, monkeypatch):
    sweep = read(folder / "sweep.toml")
    made = tuple(replace(cell, wish=replace(cell.wish, calibrate_prefix="original")) for cell in sweep.cells[:-1])
    blocks, real = [], Walk.run
    monkeypatch.setattr(Walk, "run", lambda self, *given, **named: blocks.append(1) or real(self, *given, **named))
    sizes, finished = [], []
    with Journal(None) as journal:
        shared = run(
            replace(sweep, cells=made), journal, scratch=tmp_path / "scratch",
            tell=lambda told: (finished.append(len(blocks)), sizes.append(len(list(tmp_path.rglob("*.statistics"))))),
        )  # fmt: skip
    by_itself = [work(cell, sweep.setting) for cell in made]
    assert timeless(shared) == timeless(by_itself)
    assert [result.digest for result in shared] != [result.digest for result in alone[:-1]]
    first, last = (next(at for at, cell in enumerate(made) if cell.name == f"{name} gptq")
                   for name in ("int4:g32", "mxfp4"))  # fmt: skip
    assert finished[first] == finished[last] > 0
    assert sizes[first] == sizes[last] > 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_cell_that_fails_is_a_row_with_its_reason_and_not_the_end(alone):
    *good, bad = alone
    assert all(result.loss is not None and not result.error for result in good)
    assert bad.loss is None
    assert "matches no matrix" in bad.error
    assert bad.file_bytes == 0


def test_a_defect_of_ours_is_a_row_too(folder, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(cells, "prepare", fail)
    with Journal(None) as journal:
        results = run(read(folder / "sweep.toml"), journal)
    assert {result.error for result in results} == {"ZeroDivisionError: by zero"}


def test_nothing_of_the_cells_is_left_behind(folder, alone):
    assert list((folder / "unfinished").iterdir()) == []


def test_what_the_journal_knows_is_not_done_again_and_errors_are_tried_again(folder, alone, tmp_path, monkeypatch):
    (tmp_path / "copy.jsonl").write_bytes((folder / "alone.jsonl").read_bytes() + b'{"key": "cut o')
    done = []
    honest = cells.prepare
    monkeypatch.setattr(cells, "prepare", lambda model, wish, **rest: done.append(wish) or honest(model, wish, **rest))
    with Journal(tmp_path / "copy.jsonl") as journal:
        again = run(read(folder / "sweep.toml"), journal)
    assert [wish.rules for wish in done] == [["*.nothing=int8"]]
    assert timeless(again) == timeless(alone)
    with Journal(tmp_path / "copy.jsonl", fresh=True) as journal:
        assert journal.found == {}


def test_an_interrupted_sweep_keeps_what_was_finished(folder, alone, tmp_path, monkeypatch):
    honest, calls = cells.prepare, []

    def interrupt(*given, **rest):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(*given, **rest)

    monkeypatch.setattr(cells, "prepare", interrupt)
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "j.jsonl") as journal:
        run(read(folder / "sweep.toml"), journal)
    with Journal(tmp_path / "j.jsonl") as journal:
        assert len(journal.found) == 2
        assert timeless(run(read(folder / "sweep.toml"), journal)) == timeless(alone)
    assert len(calls) == 3 + 3


def test_other_weights_another_text_or_another_wish_are_other_cells(folder, alone):
    sweep = read(folder / "sweep.toml")
    first = sweep.cells[0]
    setting = replace(sweep.setting, identity="a")
    keys = [cells.key_of(first, setting), cells.key_of(first, replace(setting, identity="b")),
            cells.key_of(first, replace(setting, text="w1")), cells.key_of(sweep.cells[1], setting),
            cells.key_of(Cell("x", replace(first.wish, embedding="f16")), setting)]  # fmt: skip
    assert len(set(keys)) == 5
    assert cells.key_of(replace(first, name="other"), setting) == keys[0], "a name changes no number"


def test_two_sweeps_do_not_share_a_journal(tmp_path):
    with Journal(tmp_path / "j"), pytest.raises(ScrimpError, match="Another sweep"):
        Journal(tmp_path / "j")


@pytest.mark.parametrize(
    "line", [b"[1]", b'{"key": "k"}', b"\xff\xfe", b"[" * 100_000, b'{"key": 1, "name": [], "kl_mean": {}}']
)
def test_lines_that_are_none_of_ours_are_passed_over_and_a_file_of_them_is_refused(tmp_path, line):
    (tmp_path / "j").write_bytes(line)
    with Journal(tmp_path / "j") as journal:
        assert journal.found == {}
    (tmp_path / "j").write_bytes(line + b"\n" + line)
    with pytest.raises(ScrimpError, match="is no journal"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == line + b"\n" + line


def test_results_survive_json_with_what_is_unknown():
    loss = Loss(1, 2.0, 3.0, math.nan, False, 0.1, math.nan, 0.1, 0.2, 0.9, math.nan, "p")
    result = Result("n", "rtn", "", 1.0, 5, 2.0, loss, "d", notes=("a", "b"))
    written = json.dumps(result.to_json(), allow_nan=False)
    assert repr(from_json(json.loads(written))) == repr(result)


def test_the_time_left_is_that_of_the_same_method_so_far():
    def made(method, seconds, error=""):
        return Result("", method, "", seconds, error=error)

    class Waiting:
        def __init__(self, method):
            self.wish = type("Wish", (), {"method": method})

    found = [made("rtn", 2.0), made("gptq", 80.0), made("gptq", 100.0), made("gptq", 1.0, "failed")]
    assert seconds_left([Waiting("gptq"), Waiting("rtn"), Waiting("hqq")], found) == 90 + 2 + (2 + 80 + 100) / 3
    assert math.isnan(seconds_left([Waiting("rtn")], []))


def test_two_processes_of_a_ray_cluster_find_the_same_bits(folder, alone):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'scrimp[sweep]'")
    with Journal(None) as journal:
        spread = run(read(folder / "sweep.toml"), journal, workers="2")
    assert timeless(spread) == timeless(alone)
    assert len({result.digest for result in spread if result.loss}) == 4


def test_a_cluster_that_runs_already_is_joined_by_its_address(folder, alone):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'scrimp[sweep]'")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        with Journal(None) as journal:
            spread = run(read(folder / "sweep.toml"), journal, workers=nodes.address)
    finally:
        nodes.shutdown()
    assert timeless(spread) == timeless(alone)


def test_an_address_where_no_cluster_is_is_one_sentence(folder):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'scrimp[sweep]'")
    with Journal(None) as journal, pytest.raises(ScrimpError, match="No Ray cluster answers at") as caught:
        run(read(folder / "sweep.toml"), journal, workers="127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_a_worker_that_dies_is_a_row_and_the_others_are_made(folder, alone, monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'scrimp[sweep]'")
    sweep = read(folder / "sweep.toml")

    def work(cell, setting):
        return os._exit(7) if cell.wish.format == "mxfp4" else cells.work(cell, setting)

    monkeypatch.setattr(cluster, "work", work)
    with Journal(None) as journal:
        results = run(sweep, journal, workers="2")
    assert ["the worker was lost" in result.error for result in results] == [False, False, True, True, False]
    assert timeless(results[:2]) == timeless(alone[:2])


def test_without_ray_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with Journal(None) as journal, pytest.raises(ScrimpError, match="needs Ray") as caught:
        run(read(folder / "sweep.toml"), journal, workers="2")
    assert "scrimp[sweep]" in caught.value.hint
