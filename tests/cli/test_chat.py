"""``scrimp chat`` with its lines from a pipe, on a whole tiny model."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import WORDS, write_tiny_model

from scrimp.cli.main import main

COMMAND = [sys.executable, "-c", "from scrimp.cli.main import script; script()", "chat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1_000_000}))
    template = "{% for message in messages %}w1 {{ message.content }} w2 {% endfor %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return directory


def talk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str, *arguments: object) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    assert main(["chat", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_every_line_is_answered_and_the_end_of_input_leaves(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = talk(monkeypatch, capsys, "w3\n\nw4 w5\n", model, "--max-tokens", 6, "--seed", 1)
    replies = out.splitlines()
    assert len(replies) == 2
    assert all(set(reply.split()) <= set(WORDS) and len(reply.split()) == 6 for reply in replies)


def test_the_second_reply_knows_the_first_exchange(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (model, "--max-tokens", 12, "--temperature", 0)
    first, second = talk(monkeypatch, capsys, "w3\nw4\n", *options).splitlines()
    assert main(["run", str(model), f"w1 w3 w2 w1 {first} w2 w1 w4 w2", "--raw", *map(str, options[1:])]) == 0
    assert capsys.readouterr().out.strip() == second.strip()


def test_forgetting_is_told(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("w3 w4 w5\n" * 6))
    assert main(["chat", str(model), "--context", "64", "--max-tokens", "12", "--seed", "1"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 6
    assert "forgotten" in captured.err


def test_a_line_too_long_is_told_and_the_talk_goes_on(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("w3 " * 90 + "\nw4\n"))
    assert main(["chat", str(model), "--context", "64", "--max-tokens", "4"]) == 0
    captured = capsys.readouterr()
    assert "context of 64" in captured.err
    assert len(captured.out.split()) == 4


def test_a_model_without_a_template_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(write_tiny_model(tmp_path / "plain"))]) == 2
    assert "no chat template" in capsys.readouterr().err


def test_wrong_values_are_refused_at_once(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(model), "--top-k", "-1"]) == 2
    assert "top_k is -1" in capsys.readouterr().err


def test_ctrl_c_stops_a_reply_and_the_talk_goes_on(model: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, str(model), "--context", "60000", "--max-tokens", "40000", "--seed", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"w3\n")
    process.stdin.flush()
    first = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    first += process.stdout.readline()
    process.stdin.write(b"w4\n")
    process.stdin.flush()
    second = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert set((first + second).decode().split()[:-1]) <= set(WORDS)
    assert len(first.split()) < 40_000
    assert rest.endswith(b"\n")
    assert (process.returncode, errors) == (0, b"")
