"""``scrimp``: the verbs, each in a file of its own, imported only when called; and what every error looks like."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from typing import Any

from scrimp.errors import ScrimpError, nearest

#: verb → what it does. The verb lives in ``scrimp.cli.<verb>`` as a typer-annotated function of the same name.
VERBS: dict[str, str] = {
    "pull": "download a catalogue model, verify it, say where it lies",
    "inspect": "what is in a model: shapes, formats, bytes, entropy",
    "compress": "make a model smaller and measure the loss",
    "recover": "bring a compressed model nearer to its original, at the same size",
    "run": "stream a completion",
    "chat": "talk to a model",
    "embed": "texts as vectors, by an encoder",
    "eval": "perplexity, divergence from the original, tasks; accuracy on pictures",
    "bench": "speed against the memory ceiling measured in the same run",
    "compare": "one table: bytes × loss × speed",
    "train": "train a low-bit network of pictures, as a recipe says",
    "export": "write a network for another runtime: C99 for a chip",
    "formats": "number formats: levels, bits, error on your tensors, cost",
    "doctor": "processor, instruction sets, memory, versions, known problems",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; returns the exit code that CLI.md documents."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        import scrimp

        print(f"scrimp {scrimp.__version__}")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        return _report(
            f"'{verb}' is no scrimp command.", nearest(verb, list(VERBS)) or f"the verbs are {', '.join(VERBS)}", 2
        )
    return _call(verb, arguments[1:])


def _call(verb: str, arguments: list[str]) -> int:
    import typer

    # typer has its own copy of click since 0.29 and used the package before: the base of its errors is found either way
    wrong_call: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    from scrimp import _core

    _core.explain_bus_errors()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    # `eval` would shadow the builtin inside its own module, so a verb's function may carry a trailing underscore.
    module = importlib.import_module(f"scrimp.cli.{verb}")
    function = getattr(module, verb, None) or getattr(module, f"{verb}_")
    app.command(name=verb)(function)
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name=f"scrimp {verb}", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except ScrimpError as error:
        return _report(error.message, error.hint, error.exit_code)
    except typer.Exit as leave:
        return leave.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except wrong_call as error:
        return _report(error.format_message(), f"scrimp {verb} --help", 2)
    except (BrokenPipeError, SystemExit):  # click turns the first into the second, with code 1
        return _nobody_listens()
    except MemoryError:
        return _report("There is not enough memory for this.", "a smaller --context or model needs less", 1)
    except OSError as error:
        return _system_error(error)
    except Exception as error:
        if os.environ.get("SCRIMP_TRACEBACK"):
            raise
        what = " ".join(str(error).split()).rstrip(".") or "no reason given"
        return _report(f"scrimp itself failed ({type(error).__name__}: {what}).",
                       "this is a defect worth reporting; with SCRIMP_TRACEBACK=1 it says where", 1)  # fmt: skip


def _system_error(error: OSError) -> int:
    name = f"{error.filename}: " if error.filename else ""
    reason = str(error.strerror or error).rstrip(".")
    return _report(f"{name}{reason}.", _OS_HINTS.get(error.errno, "check the path, and who may use it"), 1)


#: What to do about an error of the system that no verb has put into words of its own.
_OS_HINTS: dict[int | None, str] = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EISDIR: "name a file, not a directory",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "check who may read and write it",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "make room on the disk, and run the same command again",
    errno.EDQUOT: "make room on the disk, and run the same command again",
    errno.ELOOP: "a symbolic link there leads back to itself",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}
#: Characters of a message that are shown: a stranger's file may hold a name of a million.
_SHOWN = 1000


def _report(message: str, hint: str | None, code: int) -> int:
    print(f"error: {_visible(message)}", file=sys.stderr)
    if hint:
        print(f"hint:  {_visible(hint)}", file=sys.stderr)
    return code


def _visible(text: str) -> str:
    """A message as a terminal may have it, and no longer than it can be read."""
    from scrimp.cli import output

    return output.visible(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} … {text[-_SHOWN // 2 :]}")


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {what}" for verb, what in VERBS.items())
    return (
        "scrimp: make a neural network small, run it on what you have, and know exactly what you lost.\n\n"
        f"usage: scrimp VERB [...]      (scrimp VERB --help tells more)\n\n{verbs}\n\n"
        "try:  scrimp run smollm2-135m 'Why is the sky blue?'"
    )


def _nobody_listens() -> int:
    """The reader of a pipe left: no error. Python still flushes at exit, so stdout goes nowhere from here on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _prepare_streams() -> None:
    """Where the caller closed a stream, nothing is read and nothing heard: otherwise the next file that is opened would
    take its number. What an encoding lacks is written out, and what is read without it replaced: neither is an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this stream's
            setattr(sys, name, os.fdopen(nowhere, "w" if number else "r", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if number else "replace")


def script() -> None:
    """The entry point of the installed command."""
    _prepare_streams()
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:  # while a verb was being imported
        code = 130
    except BrokenPipeError:
        code = _nobody_listens()
    except OSError as error:  # a full disk behind stdout
        code = _system_error(error)
        _nobody_listens()
    sys.exit(code)
