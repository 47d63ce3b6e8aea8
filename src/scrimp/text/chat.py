"""A conversation as the text a model was trained on, through the chat template it brings.

A chat template is a program by whoever made the model file. Jinja's sandbox keeps it from files and code, but not from
looping for hours or doubling a string until memory is full, in one operation that nothing inside the process can
interrupt. So templates run in a process of their own (``render_worker``) without our environment, with bounded memory,
that is killed when it takes too long. Starting it costs about 0.1 s once, in the background; a rendering under 1 ms.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scrimp.errors import Refused, UsageError
from scrimp.text import render_worker

if TYPE_CHECKING:
    from scrimp.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MAX_TEMPLATE_CHARACTERS = 1 << 20
MAX_OUTPUT_CHARACTERS = 1 << 24
TIMEOUT_S = 10.0
NEEDED_VARIABLES = ("SYSTEMROOT", "LD_LIBRARY_PATH", "TZ")  # to start Python, and to know the time; no keys or paths
ROLES = ("system", "user", "assistant", "tool")


def template_of(tokenizer: Tokenizer) -> str:
    """The model's own template; ChatML where it only has ChatML's tokens."""
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if tokenizer.backend.token_to_id("<|im_start|>") is not None:
        return CHATML
    raise UsageError(
        "This model has no chat template: it continues text rather than answers.",
        hint="scrimp run --raw continues a text",
    )


def check_messages(messages: Sequence[Message]) -> None:
    """Refuses what is no conversation: not JSON, no messages, or a message without a known role."""
    if not messages:
        raise UsageError("There are no messages.", hint='pass at least {"role": "user", "content": "…"}')
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise UsageError(f"Message {i} has no known role.", hint=f"roles are {', '.join(ROLES)}")
        if not isinstance(message.get("content", ""), str | list | None):
            raise UsageError(
                f"Message {i} has a content that is no text.", hint="content is a string or a list of parts"
            )


class _Prepared:
    """At most one process that has no template yet; the next one to need a process takes it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()

    def start(self) -> None:
        with self._turn:
            if self._process is None:
                self._process = _start_process(TIMEOUT_S)
                atexit.register(self.end)

    def take(self) -> subprocess.Popen[bytes] | None:
        with self._turn:
            process, self._process = self._process, None
        return process

    def end(self) -> None:
        if (process := self.take()) is not None:
            _end_process(process)


_prepared = _Prepared()


def prepare() -> None:
    """Starts the process of the next template now, so that it comes up while a model is opened."""
    _prepared.start()


def _start_process(timeout_s: float) -> subprocess.Popen[bytes]:
    """-I: no user site, no PYTHON* variables, no current directory. Its own session: Ctrl-C is not meant for it."""
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(render_worker.__file__)), str(math.ceil(timeout_s) + 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in NEEDED_VARIABLES if name in os.environ},
        start_new_session=True,
    )


def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            _close_quietly(pipe)


class ChatTemplate:
    """A template and the process that renders it. Safe to share between threads, which take turns.

    ``timeout_s`` bounds one rendering, the start of the process included.
    """

    def __init__(
        self, template: str, special: Mapping[str, str] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        if len(template) > MAX_TEMPLATE_CHARACTERS:
            raise Refused(
                f"The chat template has {len(template):,} characters, more than {MAX_TEMPLATE_CHARACTERS:,}.",
                hint="scrimp run --raw does without it",
            )
        self._template = template
        self._special = dict(special or {})
        self._timeout_s = timeout_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._compiled = False
        self._start()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> ChatTemplate:
        return cls(template_of(tokenizer), tokenizer.special)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **inputs: Any) -> str:
        """The conversation as text, up to where the model's reply begins. ``inputs``: further names for the template
        (``tools``, ``enable_thinking``, …), plain data only."""
        check_messages(messages)
        names = {
            **self._special,
            "tools": None,
            "documents": None,
            **inputs,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "max_characters": MAX_OUTPUT_CHARACTERS,
        }
        try:
            json.dumps(names)
        except (TypeError, ValueError, RecursionError):
            raise UsageError(
                "A message holds something that JSON can't.", hint="pass text, numbers, lists, dicts"
            ) from None
        with self._turn:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._start()
            if not self._compiled:
                self._compile()
            return self._ask(names)

    def _compile(self) -> None:
        try:
            self._ask(None)
        except Refused:
            self.close()  # the process expects inputs now, and the next call begins with the template again
            raise
        self._compiled = True

    def close(self) -> None:
        """Ends the process. A later ``render`` starts it again."""
        process, self._process, self._compiled = self._process, None, False
        if process is None:
            return
        _end_process(process)

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_process", None) is not None:
            self.close()

    def _start(self) -> None:
        prepared = _prepared.take() if self._timeout_s == TIMEOUT_S else None
        self._process = prepared or _start_process(self._timeout_s)

    def _ask(self, names: Mapping[str, Any] | None) -> str:
        """Sends ``names`` (None: the template itself) and returns the text that comes back."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._timeout_s, kill)
        timer.daemon = True
        timer.start()
        try:
            render_worker.write(process.stdin, self._template if names is None else names)
            reply = render_worker.read(process.stdout)
        except (OSError, ValueError):  # the pipe broke, or half a frame came
            reply = None
        except BaseException:  # an interrupt: the process is in the middle of something
            self.close()
            raise
        finally:
            timer.cancel()
        if isinstance(reply, dict) and isinstance(reply.get("text"), str):
            return str(reply["text"])
        if isinstance(reply, dict) and isinstance(reply.get("error"), str):
            raise _failed(reply["error"])
        self.close()
        raise _failed(f"it took longer than {self._timeout_s:g} s" if late.is_set() else "it needs too much memory")


def _failed(reason: str) -> Refused:
    return Refused(f"The model's chat template failed: {reason}.", hint="scrimp run --raw does without it")


def _close_quietly(pipe: IO[bytes]) -> None:
    with suppress(OSError):  # data for a process that is gone
        pipe.close()
