"""``scrimp run`` as a user types it, on a whole tiny model."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import WORDS, write_tiny_model

from scrimp.cli.main import main
from scrimp.sources.catalogue import cache_directory

KEYS = {"text", "tokens", "finish_reason", "prefill_tokens_per_s", "decode_tokens_per_s"}
COMMAND = [sys.executable, "-c", "from scrimp.cli.main import script; script()", "run"]
LONG = ["--raw", "--context", "60000", "--max-tokens", "59000", "--seed", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has room for long texts, and a chat template that only puts the words of all messages together."""
    directory = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1_000_000}))
    template = "{% for message in messages %}w1 {{ message.content }} w2 {% endfor %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return directory


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["run", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def test_json_has_the_keys_of_the_contract(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, model, "w3 w4", "--raw", "--max-tokens", 5, "--seed", 1, "--json"))
    assert set(found) == KEYS
    assert (found["tokens"], found["finish_reason"]) == (5, "length")
    assert found["prefill_tokens_per_s"] > 0
    assert set(found["text"].split()) <= set(WORDS)


def test_the_text_alone_is_printed_and_ends_its_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (model, "w3 w4", "--raw", "--max-tokens", 5, "--seed", 1)
    text = json.loads(run(capsys, *arguments, "--json"))["text"]
    assert run(capsys, *arguments) == text + "\n"


def test_the_same_seed_gives_the_same_text(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [run(capsys, model, "w3", "--raw", "--max-tokens", 20, "--seed", seed) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_the_chat_template_is_applied_unless_raw(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = ("--temperature", 0, "--max-tokens", 8)
    assert run(capsys, model, "w3", *greedy) == run(capsys, model, "w1 w3 w2", "--raw", *greedy)
    assert run(capsys, model, "w3", *greedy) != run(capsys, model, "w3", "--raw", *greedy)


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_the_prompt_may_come_from_stdin(
    arguments: list[str], model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--raw", "--temperature", 0, "--max-tokens", 4)
    given = run(capsys, model, "w3 w4", *options)
    feed(monkeypatch, b"w3 w4\n")
    assert run(capsys, model, *arguments, *options) == given


def test_a_stop_string_ends_the_text_before_it(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--raw", "--temperature", 0, "--max-tokens", 30)
    whole = run(capsys, model, "w3", *options).removesuffix("\n")
    stop = whole.split()[2]
    assert run(capsys, model, "w3", *options, "--stop", stop) == whole[: whole.index(stop)] + "\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["w3", "--raw", "--top-p", "2"], 2, "top_p is 2.0"),
        (["w3", "--raw", "--temperature", "nan"], 2, "temperature is nan"),
        (["w3", "--raw", "--max-tokens", "0"], 2, "max_tokens is 0"),
        (["w3", "--raw", "--stop", ""], 2, "stop string is empty"),
        (["", "--raw"], 2, "prompt is empty"),
        (["w3 " * 70, "--raw", "--context", "64"], 3, "70 tokens"),
    ],
)
def test_what_can_not_be_done_is_one_sentence_and_a_code(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    assert main(["run", str(model), *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert says in captured.err
    assert "hint:" in captured.err


def test_a_prompt_that_is_no_utf8_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, b"w3 \xff")
    assert main(["run", str(model), "--raw"]) == 3
    assert "byte 3 is 0xff" in capsys.readouterr().err


def start(model: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, str(model), "w3 w4", *LONG, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_closed_pipe_is_no_error(model: Path) -> None:
    process = start(model)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def test_ctrl_c_keeps_the_text_and_exits_with_130(model: Path) -> None:
    process = start(model)
    assert process.stdout is not None
    first = process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (first + rest).endswith(b"\n")
    assert errors == b""


def test_ctrl_c_with_json_still_gives_one_document(model: Path) -> None:
    process = start(model, "--json")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    found: dict[str, Any] = json.loads(out)
    assert (process.returncode, found["finish_reason"]) == (130, "interrupted")
    assert set(found) == KEYS


@pytest.mark.model
def test_smollm2_knows_the_capital_of_france(capsys: pytest.CaptureFixture[str]) -> None:
    cached = cache_directory() / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path = Path(os.environ.get("SCRIMP_TEST_SMOLLM2") or cached)
    if not path.is_file():
        pytest.skip("SmolLM2 is not here: scrimp pull smollm2-135m, or name the file in SCRIMP_TEST_SMOLLM2")
    # Not as a chat: there two answers are so close that the order of float sums decides between them.
    answer = run(capsys, path, "The capital of France is", "--raw", "--temperature", 0, "--max-tokens", 4)
    assert answer.strip().startswith("Paris")
