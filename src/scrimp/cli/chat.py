"""``scrimp chat``: talk to a model."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import typer

from scrimp.cli.run import (
    Context,
    Kv,
    MaxTokens,
    MinP,
    ModelName,
    RepeatPenalty,
    Said,
    Seed,
    Temperature,
    Threads,
    TokenizerPath,
    TopK,
    TopP,
    silence_stdout,
    stream,
)
from scrimp.errors import Refused


def chat(
    model: ModelName,
    system: Annotated[str | None, typer.Option(help="what the model is told before you speak")] = None,
    max_tokens: MaxTokens = 2048,
    temperature: Temperature = 0.7,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repeat_penalty: RepeatPenalty = 1.0,
    seed: Seed = None,
    tokenizer: TokenizerPath = None,
    threads: Threads = None,
    context: Context = None,
    kv: Kv = "f16",
) -> int:
    """Talk to a model. Ctrl-C stops a reply, Ctrl-D leaves."""
    from scrimp.cli import output
    from scrimp.engine.cache import check_kv
    from scrimp.model import open_model
    from scrimp.text.chat import prepare
    from scrimp.text.conversation import Conversation
    from scrimp.text.sampling import Sampling

    sampling = asdict(Sampling(temperature, top_k, top_p, min_p, repeat_penalty, seed))
    form = check_kv(kv)
    prepare()
    with open_model(model, tokenizer=tokenizer, threads=threads, context=context, kv=form) as opened:
        output.notes(opened.notes)
        conversation = Conversation(opened.step, opened.tokenizer, opened.context, system=system)
        conversation.check()
        if sys.stdin.isatty():
            _edit_lines()
            output.note("Ctrl-C stops a reply, Ctrl-D leaves.")
        forgotten = 0
        while (line := _ask()) is not None:
            if not line.strip():
                continue
            pieces = conversation.say(line, max_tokens=max_tokens, **sampling)
            try:
                stream(pieces, Said())
            except BrokenPipeError:
                silence_stdout()
                return 0
            except Refused as refused:
                output.note(f"error: {refused.message}\nhint:  {refused.hint}")
            finally:
                pieces.close()
            if conversation.forgotten > forgotten:
                forgotten = conversation.forgotten
                output.note(f"The context is full: the oldest {forgotten} messages are forgotten.")
    return 0


def _ask() -> str | None:
    """The next line; None at the end. Ctrl-C clears the line."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "")
        except KeyboardInterrupt:
            sys.stdout.write("\n")
        except EOFError:
            if sys.stdin.isatty():
                sys.stdout.write("\n")
            return None


def _edit_lines() -> None:
    """Arrow keys and history in ``input``, where Python has them."""
    with suppress(ImportError):
        import readline  # noqa: F401
