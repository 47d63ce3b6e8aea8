"""Interruptions, full disks and directories that are not ours: OUT is the old model or the new one, never a mixture."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scrimp.errors import ScrimpError, UsageError
from scrimp.quantize.compress import compress
from scrimp.store import partial as partial_module
from scrimp.store.layout import lay_out
from scrimp.store.partial import JOURNAL, Partial, partial_of

SHAPES = {"a": (40,), "b": (1000,), "c": (7,)}


def values(name: str) -> np.ndarray:
    return np.arange(SHAPES[name][0], dtype=np.float32)


def start(out: Path, fingerprint: str = "job", *, fresh: bool = False) -> Partial:
    return Partial(out, lay_out(SHAPES, {}), fingerprint, fresh=fresh)


def finish(partial: Partial) -> None:
    for name in SHAPES:
        if name not in partial.finished:
            partial.write(name, values(name), 0.0)
    partial.complete({"config.json": "{}", "scrimp.json": "{}"})


def test_an_interrupted_store_resumes_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), start(out) as partial:  # noqa: PT012
        partial.write("b", values("b"), 0.25)
        raise KeyboardInterrupt
    assert not out.exists()
    with start(out) as partial:
        assert list(partial.finished) == ["b"]
        assert partial.finished["b"].error == 0.25
        finish(partial)
    with start(tmp_path / "straight") as straight:
        finish(straight)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "straight" / "model.safetensors").read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "scrimp.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "straight"]


@pytest.mark.parametrize("fresh", [True, False])
def test_another_job_or_fresh_starts_over(tmp_path: Path, fresh: bool) -> None:
    with start(tmp_path / "out") as partial:
        partial.write("a", values("a"), 0.0)
    with start(tmp_path / "out", "job" if fresh else "another job", fresh=fresh) as partial:
        assert not partial.finished


@pytest.mark.parametrize("keep", range(0, 260, 13))
def test_a_journal_cut_off_anywhere_resumes_with_whole_lines(tmp_path: Path, keep: int) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        partial.write("a", values("a"), 0.0)
        partial.write("c", values("c"), 0.0)
    journal = partial_of(out) / JOURNAL
    journal.write_bytes(journal.read_bytes()[:keep])
    with start(out) as partial:
        assert list(partial.finished) in ([], ["a"], ["a", "c"])
        finish(partial)
    assert (out / "model.safetensors").is_file()


def test_lines_written_after_a_cut_off_one_are_not_lost(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        partial.write("a", values("a"), 0.0)
    with (partial_of(out) / JOURNAL).open("ab") as journal:
        journal.write(b'{"tensor": "b", "err')
    with start(out) as partial:
        partial.write("c", values("c"), 0.0)
    with start(out) as partial:
        assert list(partial.finished) == ["a", "c"]


def test_nothing_is_said_to_be_finished_before_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_write = os.fsync, os.write
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), real_sync(fd))[1])
    monkeypatch.setattr(os, "write", lambda fd, data: (events.append("journal"), real_write(fd, data))[1])
    monkeypatch.setattr(partial_module, "_DURABLE_EVERY_S", 0.0)
    with start(tmp_path / "out") as partial:
        events.clear()
        partial.write("a", values("a"), 0.0)
        assert events == ["sync", "journal", "sync"]


def test_a_directory_of_someone_else_is_not_touched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("do not lose me")
    with pytest.raises(UsageError, match="files that scrimp did not write"):
        start(out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert not partial_of(out).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a directory"):
        start(tmp_path / "file")


def test_an_old_store_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        finish(partial)
    (out / "config.json").write_text("old")
    with start(out, "new job") as partial:
        partial.write("a", values("a"), 0.0)
        assert (out / "config.json").read_text() == "old"
        finish(partial)
    assert (out / "config.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_swap_that_fails_half_way_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        finish(partial)
    (out / "config.json").write_text("old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == partial_of(out):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with start(out, "new job") as partial, pytest.raises(OSError, match="Input/output"):
        finish(partial)
    assert (out / "config.json").read_text() == "old"


def test_a_crash_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as partial:
        finish(partial)
    out.rename(tmp_path / ".out.old")
    with start(out, "new job"):
        assert (out / "scrimp.json").is_file()


def test_two_writers_don_t_meet(tmp_path: Path) -> None:
    with start(tmp_path / "out"), pytest.raises(ScrimpError, match="Another scrimp is writing"):
        start(tmp_path / "out")


def refuse(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_at_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(ScrimpError, match=r"needs .*No space left on device") as told:
        start(tmp_path / "out")
    assert told.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(ScrimpError, match="No space left"), start(out) as partial:  # noqa: PT012
        partial.write("a", values("a"), 0.0)
        monkeypatch.setattr(os, "pwrite", refuse)
        partial.write("b", values("b"), 0.0)
    monkeypatch.undo()
    assert not out.exists()
    with start(out) as partial:
        assert list(partial.finished) == ["a"]


def limited_to(size_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def test_a_real_limit_of_the_system_is_one_line_and_exit_code_1(network: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from scrimp.cli.main import script; script()", "compress", str(network), "-o",
               str(tmp_path / "out"), "--format", "int8"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited_to(4096), check=False)
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_exits_130_and_the_same_command_goes_on(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = """
import time
from scrimp.quantize import apply
real = apply.one
def slow(name, stored, choice):
    if "mlp" in name:
        print("waiting", flush=True)
        time.sleep(60)
    return real(name, stored, choice)
apply.one = slow
from scrimp.cli.main import script
script()
"""
    arguments = ["compress", str(network), "-o", str(out), "--format", "int4:g32"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while "waiting" not in process.stdout.readline():
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "continues" in told
    assert "Traceback" not in told
    assert not out.exists()
    report = compress(network, out, format="int4:g32")
    assert report.resumed > 0
    assert partial_of(out).exists() is False
    compress(network, tmp_path / "straight", format="int4:g32")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "straight" / "model.safetensors").read_bytes()


def test_what_is_forgotten_is_made_anew_also_after_another_interruption(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), start(out) as partial:  # noqa: PT012
        for name in SHAPES:
            partial.write(name, values(name), 0.0)
        assert (partial.read_vector("b") == values("b")).all()
        partial.forget(["b", "never written"])
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), start(out) as partial:  # noqa: PT012
        assert list(partial.finished) == ["a", "c"]
        partial.write("b", -values("b"), 0.5)
        raise KeyboardInterrupt
    with start(out) as partial:
        assert partial.finished["b"].error == 0.5
        assert (partial.read_vector("b") == -values("b")).all()
