"""The command line itself: verbs, help, exit codes, and errors of one line and a hint."""

import importlib
import subprocess
import sys

import pytest
import typer

from scrimp.cli import main as main_module
from scrimp.cli.main import VERBS, main
from scrimp.errors import GoalNotMet, Refused, ScrimpError, UsageError


@pytest.fixture
def verb_that(monkeypatch):
    """Makes ``scrimp doctor`` raise something."""

    def install(error):
        def doctor():
            raise error

        monkeypatch.setattr(importlib.import_module("scrimp.cli.doctor"), "doctor", doctor)

    return install


@pytest.mark.parametrize("flag", ["-h", "--help", "help"])
def test_help_lists_every_verb(flag, capsys):
    assert main([flag]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb}" in printed for verb in VERBS)


def test_nothing_typed_is_a_usage_error_that_helps(capsys):
    assert main([]) == 2
    assert "usage:" in capsys.readouterr().out


def test_version(capsys):
    import scrimp

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"scrimp {scrimp.__version__}\n"


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_explains_itself(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert f"scrimp {verb}" in capsys.readouterr().out


def test_an_unknown_verb_is_a_usage_error_with_a_guess(capsys):
    assert main(["evall"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: 'evall' is no scrimp command.\nhint:  Did you mean 'eval'?\n"


def test_an_unknown_flag_is_a_usage_error(capsys):
    assert main(["doctor", "--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


def test_a_flag_that_is_no_number_is_a_usage_error(capsys):
    assert main(["bench", "model", "--repeat", "often"]) == 2
    assert "'--repeat'" in capsys.readouterr().err


def test_a_missing_argument_is_a_usage_error(capsys):
    assert main(["bench"]) == 2
    assert "MODEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ScrimpError("It broke.", hint="mend it"), 1),
        (UsageError("It broke.", hint="mend it"), 2),
        (Refused("It broke.", hint="mend it"), 3),
        (GoalNotMet("It broke.", hint="mend it"), 4),
    ],
)
def test_each_error_has_its_exit_code_one_sentence_and_a_hint(error, code, verb_that, capsys):
    verb_that(error)
    assert main(["doctor"]) == code
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "error: It broke.\nhint:  mend it\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_exits_with_130(error, verb_that):
    verb_that(error)
    assert main(["doctor"]) == 130


def test_a_full_disk_is_one_line(verb_that, capsys):
    verb_that(OSError(28, "No space left on device", "out/model.safetensors"))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == (
        "error: out/model.safetensors: No space left on device.\n"
        "hint:  make room on the disk, and run the same command again\n"
    )


def test_too_little_memory_is_one_line(verb_that, capsys):
    verb_that(MemoryError())
    assert main(["doctor"]) == 1
    assert "not enough memory" in capsys.readouterr().err


def test_a_verb_may_choose_its_exit_code(verb_that):
    verb_that(typer.Exit(4))
    assert main(["doctor"]) == 4


def test_the_verbs_are_imported_only_when_called():
    code = (
        "import sys, scrimp.cli.main as m; m.main(['--help']); "
        "print([n for n in sys.modules if n in ('numpy', 'typer', 'rich')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_is_no_error():
    code = "from scrimp.cli.main import script; script()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert b"Traceback" not in process.stderr.read()


def test_main_is_what_the_installed_command_calls():
    assert callable(main_module.script)
