"""A conversation with a model, which evaluates each of its tokens once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.text.generate import Piece, Step
from scrimp.text.prompt import prompt_tokens, reply
from scrimp.text.tokenizer import Tokenizer


class Conversation:
    """``messages`` so far, and which tokens ``step`` has in its key/value cache.

    When the conversation fills three quarters of the context, its oldest exchanges are forgotten (never the system
    message) and counted in ``forgotten``.
    """

    def __init__(self, step: Step, tokenizer: Tokenizer, context: int, *, system: str | None = None) -> None:
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
        self.forgotten = 0
        self._step, self._tokenizer, self._context = step, tokenizer, context
        self._evaluated: list[int] = []

    def check(self) -> None:
        """Refuses a model that can't converse, before anything is said: it needs a chat template that works."""
        prompt_tokens(self._tokenizer, [*self.messages, {"role": "user", "content": "…"}])

    def say(self, text: str, **options: Any) -> Generator[Piece]:
        """The reply, piece by piece. Options as of ``prompt.reply``. Closing the iterator early keeps what was said; a
        refusal takes the message back."""
        self.messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            prompt = self._prompt()
            cached = _common(prompt, self._evaluated)
            for piece in reply(self._evaluate, prompt, self._tokenizer, self._context, cached=cached, **options):
                said.append(piece.text)
                yield piece
        finally:
            if said:
                self.messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self.messages.pop()

    def _prompt(self) -> list[int]:
        while True:
            prompt = prompt_tokens(self._tokenizer, self.messages)
            users = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
            if len(prompt) <= self._context * 3 // 4 or len(users) < 2:
                return prompt
            self.forgotten += users[1] - users[0]
            del self.messages[users[0] : users[1]]

    def _evaluate(self, tokens: Sequence[int], start: int) -> NDArray[np.floating]:
        del self._evaluated[start:]  # if this call is interrupted, what is there from here on is unknown
        logits = self._step(tokens, start)
        self._evaluated += tokens
        return logits


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens ``a`` and ``b`` begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
