"""bench/busy_neighbour.py on a tiny model: neighbours run only in their turns, and end."""

import json
import signal
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "sources"))
import busy_neighbour
from tiny_llama import weights, write_gguf


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_neighbours_run_in_their_turn_and_never_after():
    with busy_neighbour.stopped_neighbours(2) as made, busy_neighbour.running(made[:1]):
        assert state(made[0]) != "T"
        assert state(made[1]) == "T"
    assert [process.returncode for process in made] == [-signal.SIGKILL] * 2


def test_every_case_has_its_turns(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(busy_neighbour, "SETTLE_S", 0.01)
    write_gguf(tmp_path / "tiny.gguf", weights())
    arguments = ["--model", str(tmp_path / "tiny.gguf"), "--prompt", "4", "--decode", "3", "--rounds", "2"]
    assert busy_neighbour.main([*arguments, "--threads", "1,2", "--neighbours", "0,1"]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(printed.splitlines()[-1])["rows"]
    assert [(row["threads"], row["neighbours"]) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all(len(row["turns"]) == 2 and min(row["turns"]) > 0 for row in rows)
    assert "2 threads, 1 neighbours" in printed
    assert busy_neighbour.main(["--model", str(tmp_path / "none.gguf")]) != 0
