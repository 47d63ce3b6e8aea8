"""``scrimp doctor``: facts where there are any, and no crash where there are none."""

import json
from dataclasses import replace

import pytest

from scrimp.cli.main import main
from scrimp.measure.machine import examine, known_problems


@pytest.fixture(scope="module")
def machine():
    return examine()


def test_doctor_prints_what_was_chosen(capsys, monkeypatch):
    monkeypatch.delenv("SCRIMP_ISA", raising=False)
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["isa"] == found["isas"][-1]
    assert found["isas"][0] == "scalar"
    assert found["threads"] >= 1
    assert found["memory_read_gb_per_s"] > 0
    assert {"scrimp", "python", "numpy", "tokenizers"} <= set(found["versions"])


def test_doctor_speaks_to_people(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "instruction sets" in printed
    assert "known problems" in printed or "problem:" in printed


def test_a_system_without_proc_and_sys_is_examined_too(tmp_path):
    found = examine(tmp_path)
    assert found.memory_bytes is None
    assert found.huge_pages is None
    assert found.processor


def test_files_that_make_no_sense_are_no_facts(tmp_path):
    for name, text in (
        ("proc/meminfo", "MemTotal\nMemTotal: lots\n:\n"), ("proc/cpuinfo", "model name"),
        ("sys/fs/cgroup/cpu.max", "9 0"),
        ("sys/fs/cgroup/memory.max", "max"), ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = examine(tmp_path)
    assert (found.memory_bytes, found.cpu_quota, found.huge_pages) == (None, None, None)


def test_files_of_a_small_container_are_read(tmp_path):
    for name, text in (
        ("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 500000 kB\n"),
        ("proc/cpuinfo", "model name\t: Abacus 9\n"),
        ("sys/fs/cgroup/cpu.max", "50000 100000"), ("sys/fs/cgroup/memory.max", "1000000000"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = examine(tmp_path)
    assert (found.processor, found.memory_bytes, found.cpu_quota, found.huge_pages) == ("Abacus 9", 10**9, 0.5, "never")
    problems = [problem.problem for problem in found.problems]
    assert "huge pages are off" in problems
    assert "only 0.5 GB of memory are free" in problems
    assert any("share 0.5 cores" in problem for problem in problems)


def test_a_slower_choice_is_a_known_problem(machine):
    forced = replace(machine, isas=("scalar", "avx2"), isa="scalar")
    problems = [problem.problem for problem in known_problems(forced, {"SCRIMP_ISA": "scalar"})]
    assert "SCRIMP_ISA chooses scalar; avx2 is the fastest here" in problems


def test_an_instruction_set_that_is_not_here_is_a_problem_not_a_crash(monkeypatch, capsys):
    monkeypatch.setenv("SCRIMP_ISA", "abacus")
    assert main(["doctor"]) == 0
    assert "'abacus' is not available here" in capsys.readouterr().out


def test_a_processor_without_fast_code_is_told_so(machine):
    problems = known_problems(replace(machine, isas=("scalar",), isa="scalar"), {})
    assert any("no instruction set" in problem.problem for problem in problems)
