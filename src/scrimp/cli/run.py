"""``scrimp run``: stream a completion."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrimp.errors import Refused

if TYPE_CHECKING:
    from scrimp.text.generate import Piece, Timings

ModelName = Annotated[str, typer.Argument(help="a path, a catalogue name or a hub id", metavar="MODEL")]
MaxTokens = Annotated[int, typer.Option(help="tokens of a reply, at most")]
Temperature = Annotated[float, typer.Option(help="0 takes the likeliest token; higher is bolder")]
TopK = Annotated[int, typer.Option(help="choose among the K likeliest tokens; 0 is off")]
TopP = Annotated[float, typer.Option(help="choose among the fewest tokens that together reach P; 1 is off")]
MinP = Annotated[float, typer.Option(help="leave out tokens below P times the likeliest one; 0 is off")]
RepeatPenalty = Annotated[float, typer.Option(help="makes tokens that occurred less likely; 1 is off")]
Seed = Annotated[int | None, typer.Option(help="the same seed gives the same text")]
Stop = Annotated[list[str] | None, typer.Option(help="end before this text; repeatable")]
TokenizerPath = Annotated[Path | None, typer.Option(help="tok*.bin of a llama2.c model")]
Threads = Annotated[int | None, typer.Option(min=1, help="one per core unless given")]
Context = Annotated[int | None, typer.Option(min=1, help="most tokens of prompt and reply together")]
Kv = Annotated[str, typer.Option(help="keys and values in the cache: f16, int8 or int4", metavar="FORMAT")]


#: Most that is read from stdin.
PROMPT_BYTES = 64_000_000


@dataclass
class Said:
    """What came so far of a reply. ``reason``: "stop", "length", or "interrupted" until the end is reached."""

    text: str = ""
    tokens: int = 0
    reason: str = "interrupted"
    timings: Timings | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens += len(piece.tokens)
        self.reason = piece.finish_reason or self.reason
        self.timings = piece.timings

    def speeds(self) -> tuple[float, float]:
        """Tokens per second of prefill and decode; 0 before the first."""
        if self.timings is None:
            return 0.0, 0.0
        return self.timings.prefill_tokens_per_s, self.timings.decode_tokens_per_s


def run(
    model: ModelName,
    prompt: Annotated[str | None, typer.Argument(help="absent or '-': read from stdin", metavar="[PROMPT]")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repeat_penalty: RepeatPenalty = 1.0,
    seed: Seed = None,
    stop: Stop = None,
    raw: Annotated[bool, typer.Option("--raw", help="continue the prompt as it is, without the chat template")] = False,
    tokenizer: TokenizerPath = None,
    threads: Threads = None,
    context: Context = None,
    kv: Kv = "f16",
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> int:
    """Stream a reply to a prompt, or with --raw its continuation."""
    from scrimp.cli import output
    from scrimp.engine.cache import check_kv
    from scrimp.model import open_model

    form = check_kv(kv)
    if not raw:
        from scrimp.text.chat import prepare

        prepare()
    text = _from_stdin() if prompt in (None, "-") else prompt
    said = Said()
    try:
        with open_model(model, tokenizer=tokenizer, threads=threads, context=context, kv=form) as opened:
            output.notes(opened.notes)
            pieces = opened.pieces(
                text, raw=raw, max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                repeat_penalty=repeat_penalty, seed=seed, stop=stop or (),
            )  # fmt: skip
            stream(pieces, said, show=not json)
    except BrokenPipeError:
        silence_stdout()
        return 0
    prefill, decode = said.speeds()
    if json:
        output.print_json(
            {"text": said.text, "tokens": said.tokens, "finish_reason": said.reason,
             "prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode}
        )  # fmt: skip
    elif sys.stderr.isatty():
        output.note(f"{said.tokens:,} tokens; prefill {prefill:,.0f}, decode {decode:,.0f} tokens/s ({said.reason})")
    return 130 if said.reason == "interrupted" else 0


def stream(pieces: Iterator[Piece], said: Said, *, show: bool = True) -> None:
    """Writes a reply as it comes and ends the line. Ctrl-C ends it early and keeps what was said."""
    try:
        for piece in pieces:
            said.add(piece)
            if show and piece.text:
                sys.stdout.write(piece.text)
                sys.stdout.flush()
    except KeyboardInterrupt:
        said.reason = "interrupted"
    if show and not said.text.endswith("\n"):
        sys.stdout.write("\n")
    sys.stdout.flush()


def silence_stdout() -> None:
    """The reader of the pipe is gone: nothing that Python still flushes at its end should fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _from_stdin() -> str:
    """All of stdin without its last line end, which ``echo`` and editors add."""
    from scrimp.cli import output

    if sys.stdin.isatty():
        output.note("Type the prompt; Ctrl-D ends it.")
    raw = sys.stdin.buffer.read(PROMPT_BYTES + 1)  # a pipe may never end
    if len(raw) > PROMPT_BYTES:
        raise Refused(f"The prompt has more than {PROMPT_BYTES:,} bytes.", hint="no context holds so much; shorten it")
    try:
        return raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Refused(f"The prompt is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}.",
                      hint="convert it, for example with iconv") from None  # fmt: skip
