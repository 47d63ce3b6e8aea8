"""From what a caller has, a prompt or messages and named options, to ``generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scrimp.errors import UsageError
from scrimp.text.chat import Message
from scrimp.text.generate import Piece, Step, generate
from scrimp.text.sampling import Sampling
from scrimp.text.tokenizer import Tokenizer


def prompt_tokens(tokenizer: Tokenizer, prompt: str | Sequence[Message], *, raw: bool = False) -> list[int]:
    """Tokens of a prompt. ``raw``: the text as it is, after BOS where the tokenizer adds one. Otherwise a conversation,
    of which a text is the first message, through the chat template, which writes its own BOS."""
    if raw:
        if not isinstance(prompt, str):
            raise UsageError("Messages can't be taken raw.", hint="pass one text, or leave raw out")
        return tokenizer.encode(prompt)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.encode(tokenizer.chat.render(messages), add_bos=False)


def reply(
    step: Step,
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    context: int,
    *,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    cached: int = 0,
    **sampling: Any,
) -> Iterator[Piece]:
    """``generate`` with the fields of ``Sampling`` as keywords: ``temperature=0, seed=1, …``."""
    stops = [stop] if isinstance(stop, str) else stop
    chosen = Sampling(**sampling)
    return generate(step, prompt, tokenizer, chosen, context=context, max_tokens=max_tokens, stops=stops, cached=cached)
