"""What a hostile or careless user types or brings: one line, a hint, the documented exit code, nothing left behind."""

import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import write_text, write_tiny_model

from scrimp.cli.main import main
from scrimp.store import partial

DISK_FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("texts") / "text.txt", 400)


@pytest.fixture
def own_model(tmp_path):
    """A model that the test may spoil."""
    return write_tiny_model(tmp_path / "own")


@pytest.fixture
def fails(capsys):
    """Runs a command and checks how it fails: nothing on stdout, one line of error and one of hint on stderr."""

    def run(code, *arguments, says=""):
        assert main([*map(str, arguments)]) == code
        printed = capsys.readouterr()
        assert printed.out == ""
        first, second, *rest = printed.err.splitlines()
        assert first.startswith("error: ")
        assert not first.endswith("..")
        assert says in first
        assert "scrimp itself failed" not in first
        assert second.startswith("hint:  ")
        assert rest == []
        return printed.err

    return run


def typed(*arguments, **options):
    """The installed command in a process of its own."""
    command = [sys.executable, "-c", "from scrimp.cli.main import script; script()", *map(str, arguments)]
    return subprocess.run(command, timeout=60, check=False, **{"stdin": subprocess.DEVNULL, **options})


# --- flags


@pytest.mark.parametrize("threads", ["1025", "100000", "9" * 30])
def test_more_threads_than_the_engine_takes_are_a_usage_error(fails, model, threads):
    fails(2, "run", model, "w1", "--raw", "--threads", threads, "--json", says="threads are out of range")


@pytest.mark.parametrize("threads", ["", "0", "x", "²", "-1", "9" * 5000])
def test_a_senseless_number_in_the_environment_is_a_usage_error(fails, model, monkeypatch, threads):
    monkeypatch.setenv("SCRIMP_THREADS", threads)
    fails(2, "run", model, "w1", "--raw", says="SCRIMP_THREADS")


@pytest.mark.parametrize(
    "wish", ["--bits=inf", "--bits=1e308", "--bits=nan", f"--size={'9' * 400}", "--size=", "--format=", "--size=-5MB"]
)
def test_a_wish_that_is_no_number_is_a_usage_error(fails, model, tmp_path, wish):
    fails(2, "compress", model, "-o", tmp_path / "out", wish, "--json")
    assert list(tmp_path.iterdir()) == []


def test_a_method_for_what_is_kept_as_it_is_is_a_usage_error(fails, model, tmp_path):
    fails(2, "compress", model, "-o", tmp_path / "out", "--keep", "--method", "gptq", says="--keep chooses no codes")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_embedding_format_is_an_error_and_not_the_default(fails, model, tmp_path):
    fails(2, "compress", model, "-o", tmp_path / "out", "--format", "int4", "--embedding", "", says="no known format")


@pytest.mark.parametrize("limit", [1, 63])
def test_a_loss_that_cannot_be_measured_is_refused_before_the_work(fails, model, text, tmp_path, limit):
    fails(2, "compress", model, "-o", tmp_path / "out", "--format", "int4", "--text", text, "--max-tokens", limit,
          "--json", says="less than one window")  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_text_of_one_word_is_refused_before_the_work(fails, model, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("w1")
    fails(3, "compress", model, "-o", tmp_path / "out", "--format", "int4", "--text", short, "--json")
    assert list(tmp_path.iterdir()) == [short]


# --- names and paths


def test_an_empty_model_name_is_not_the_current_directory(fails):
    fails(2, "inspect", "", says="empty")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/x", "a" * 300 + "/b"])
def test_a_name_that_can_be_no_path_is_shown_shortened(fails, name):
    assert len(fails(1, "inspect", name)) < 600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("where", ["", "config.json", "model.safetensors"])
def test_a_named_pipe_is_refused_and_not_waited_for(fails, own_model, where):
    path = own_model / where if where else own_model.parent / "model.gguf"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    fails(3, "inspect", own_model if where else path)


@pytest.mark.parametrize("flag", ["--text", "--task"])
def test_a_text_that_is_missing_or_a_directory_has_a_hint(fails, model, flag):
    fails(1, "eval", model, flag, "/nowhere/at/all", says="No such file")
    fails(1, "eval", model, flag, model, says="Is a directory")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_a_text_without_an_end_is_refused(fails, model):
    fails(3, "eval", model, "--text", "/dev/zero", says="more than 20.0 MB")


@pytest.mark.parametrize("name", ["..", "sub/.."])
def test_out_needs_a_name_of_its_own(fails, model, tmp_path, monkeypatch, name):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    fails(2, "compress", model, "-o", name, "--format", "int4", "--no-loss", "--json")


def test_out_below_a_file_is_told_by_the_name_that_was_typed(fails, model, tmp_path):
    (tmp_path / "file").write_text("x")
    said = fails(1, "compress", model, "-o", tmp_path / "file" / "x", "--format", "int4", "--no-loss", "--json")
    assert f"{tmp_path}/file/x cannot be written" in said
    assert ".partial" not in said


def test_a_store_that_holds_a_strangers_file_is_not_replaced(fails, model, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["compress", str(model), "-o", str(out), "--format", "int4", "--no-loss", "--json"]
    assert main(command) == 0
    assert main(command) == 0  # nothing but its own files: replaced
    capsys.readouterr()
    (out / "notes.txt").write_text("mine")
    fails(2, *command, says="did not write, such as notes.txt")
    assert (out / "notes.txt").read_text() == "mine"


def test_a_disk_that_fills_while_the_tokenizer_is_written_is_told_by_name(fails, model, tmp_path, monkeypatch):
    from scrimp.text.tokenizer import Tokenizer

    save = Tokenizer.save

    def full(self, directory):
        if ".out.partial" in str(directory):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, directory)

    monkeypatch.setattr(Tokenizer, "save", full)
    out = tmp_path / "out"
    fails(1, "compress", model, "-o", out, "--format", "int4", "--no-loss", "--json", says=f"{out} needs")
    assert not out.exists()
    assert (partial.partial_of(out) / "model.safetensors").is_file(), "what was finished is kept"


# --- models


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("value", ["x", 1, 1.5, True, [1]])
def test_a_rotary_scaling_that_is_no_object_is_refused(fails, own_model, key, value):
    change(own_model, **{key: value})
    fails(3, "inspect", own_model, says=key)


@pytest.mark.parametrize(
    "factors", ["abcd", [[1], [2, 3]], [1, 2], ["1"] * 4, [1e300] * 4, [0] * 4, [10**400] * 4, None]
)
def test_rotary_factors_that_are_no_numbers_are_refused(fails, own_model, factors):
    change(own_model, rope_scaling={"rope_type": "factors", "factors": factors})
    fails(3, "inspect", own_model, says="rope factors")


@pytest.mark.parametrize("key", ["rope_theta", "rms_norm_eps", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan"), True, "1", [1]])
def test_a_number_that_no_float_holds_is_refused(fails, own_model, key, value):
    change(own_model, **{key: value})
    fails(3, "inspect", own_model, says=key)


def test_a_long_name_out_of_a_file_does_not_fill_the_screen(fails, own_model):
    change(own_model, model_type="x" * 100_000)
    assert len(fails(3, "inspect", own_model)) < 2000


def test_a_header_of_many_small_values_is_refused_before_it_is_parsed(fails, own_model):
    header = b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"
    (own_model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    fails(3, "inspect", own_model, says="values; the limit is")


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_store_that_lost_a_file_is_refused(fails, model, tmp_path, capsys, lost):
    out = tmp_path / "out"
    assert main(["compress", str(model), "-o", str(out), "--format", "int4", "--no-loss", "--json"]) == 0
    capsys.readouterr()
    (out / lost).unlink()
    fails(3, "inspect", out, says=f"lacks {lost}")


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_refused(fails, own_model, tmp_path):
    path = own_model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["w24"] = 24
    path.write_text(json.dumps(tokenizer))
    fails(3, "run", own_model, "w1", "--raw", "--json", says="25 tokens, the embedding 24 rows")
    fails(3, "compress", own_model, "-o", tmp_path / "out", "--format", "int4", "--no-loss", "--json", says="25 tokens")
    assert not (tmp_path / "out").exists()


def test_a_token_beyond_a_gap_is_refused_when_it_is_used(fails, own_model, tmp_path):
    """A start does not list the vocabulary to find it; what makes a store of it does."""
    path = own_model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    del tokenizer["model"]["vocab"]["w5"]
    tokenizer["model"]["vocab"]["w99"] = 99
    path.write_text(json.dumps(tokenizer))
    (tmp_path / "text.txt").write_text("w1 w99 " * 40)
    fails(2, "run", own_model, "w1 w99", "--raw", "--json", says="Token 99 is not in 0 … 23")
    fails(3, "eval", own_model, "--text", tmp_path / "text.txt", "--context", 16, says="The text has token 99")
    fails(
        3, "compress", own_model, "-o", tmp_path / "out", "--format", "int4", "--no-loss", "--json", says="100 tokens"
    )
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_fails_in_the_middle_of_a_text_is_refused(fails, own_model):
    path = own_model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["unk_token"] = "no such token"
    path.write_text(json.dumps(tokenizer))
    fails(3, "run", own_model, "something unknown", "--raw", "--json", says="tokenizer is malformed")


# --- prompts


def test_a_prompt_far_beyond_the_context_is_refused_before_it_is_tokenized(fails, model):
    fails(3, "run", model, "w1 " * 100_000, "--raw", "--json", says="300,000 characters")


def test_a_message_far_beyond_the_context_is_refused_before_it_is_rendered(fails, own_model):
    (own_model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    fails(3, "run", own_model, "w1 " * 100_000, "--json", says="300,000 characters")
    (own_model / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ 'w1 ' * 100000 }}"}))
    fails(3, "run", own_model, "w1", "--json", says="300,000 characters")


# --- streams


@pytest.mark.skipif(not DISK_FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["pull"], ["pull", "--json"]])
def test_a_stdout_that_is_full_is_an_error_of_one_line(arguments):
    with DISK_FULL.open("w") as full:
        done = typed(*arguments, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.decode() == "error: No space left on device.\nhint:  make room on the disk, and run the same " \
        "command again\n"  # fmt: skip


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh here")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(model, closed):
    call = f"{sys.executable} -c 'from scrimp.cli.main import script; script()' run {model} w1 --raw {closed}"
    done = subprocess.run(["sh", "-c", call], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("verb", [["pull", "--json"], ["pull"], ["--help"]])
def test_a_reader_who_left_is_no_error(verb):
    read, write = os.pipe()
    os.close(read)
    done = typed(*verb, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_without_unicode_gets_the_characters_written_out(model, tmp_path):
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = typed("compress", model, "-o", tmp_path / "out", "--format", "int4", "--dry-run", env=plain,
                 capture_output=True)  # fmt: skip
    assert (done.returncode, done.stderr.count(b"error")) == (0, 0)
    assert b"\\u2192" in done.stdout


def test_a_defect_of_our_own_is_one_line_too(capsys, monkeypatch):
    def broken(**_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("scrimp.measure.machine.examine", broken)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: scrimp itself failed (")
    monkeypatch.setenv("SCRIMP_TRACEBACK", "1")
    with pytest.raises((ZeroDivisionError, TypeError)):
        main(["doctor"])


def change(directory, **entries):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_file_that_shrinks_while_it_is_read_ends_in_words(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(1 << 16))
    code = (
        "import mmap, os, sys; from scrimp import _core; _core.explain_bus_errors(); file = open(sys.argv[1], 'r+b'); "
        "view = mmap.mmap(file.fileno(), 0); os.truncate(sys.argv[1], 0); print(view[40000])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: A file became shorter while it was read.\nhint:")
    assert "Traceback" not in done.stderr
