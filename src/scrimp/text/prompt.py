"""From what a caller has, a prompt or messages and named options, to ``generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from scrimp.errors import Refused, UsageError
from scrimp.text.generate import Piece, Step, generate
from scrimp.text.sampling import Sampling
from scrimp.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from scrimp.text.chat import Message

#: No text of more characters than this for each token of the context is worth tokenizing, which takes memory.
TOKEN_CHARACTERS = 64


def prompt_tokens(
    tokenizer: Tokenizer, prompt: str | Sequence[Message], *, raw: bool = False, context: int | None = None
) -> list[int]:
    """Tokens of a prompt. ``raw``: the text as it is, after BOS where the tokenizer adds one. Otherwise a conversation,
    of which a text is the first message, through the chat template, which writes its own BOS. Refused when the text
    is far longer than ``context`` tokens can be."""
    if raw:
        if not isinstance(prompt, str):
            raise UsageError("Messages can't be taken raw.", hint="pass one text, or leave raw out")
        return tokenizer.encode(_bounded(prompt, context))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    for message in messages:
        _bounded(str(message.get("content", "")), context)
    return tokenizer.encode(_bounded(tokenizer.chat.render(messages), context), add_bos=False)


def _bounded(text: str, context: int | None) -> str:
    if context is not None and len(text) > TOKEN_CHARACTERS * (context + 64):
        raise Refused(f"The prompt has {len(text):,} characters, too many for a context of {context:,} tokens.",
                      hint="shorten the prompt")  # fmt: skip
    return text


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
