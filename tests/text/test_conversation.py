from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scrimp.errors import Refused, UsageError
from scrimp.text.conversation import Conversation
from scrimp.text.tokenizer import Tokenizer


class Parrot:
    """A network that always says the same few tokens and an end; it checks that its cache is used as a cache may be."""

    def __init__(self, tokenizer: Tokenizer, says: str = " the village<|im_end|>") -> None:
        self.calls: list[tuple[list[int], int]] = []
        self.cache: list[int] = []
        self._says, self._said, self._V = tokenizer.encode(says), 0, tokenizer.vocab_size

    def __call__(self, tokens: Sequence[int], start: int) -> np.ndarray:
        assert start <= len(self.cache), "a position was skipped"
        self.calls.append((list(tokens), start))
        self.cache = [*self.cache[:start], *tokens]
        self._said = 0 if len(tokens) > 1 else self._said + 1
        logits = np.zeros(self._V, np.float32)
        logits[self._says[self._said]] = 1.0
        return logits


def said(conversation: Conversation, text: str) -> str:
    return "".join(piece.text for piece in conversation.say(text, temperature=0))


def test_what_was_said_is_remembered(byte_level: Tokenizer) -> None:
    conversation = Conversation(Parrot(byte_level), byte_level, 200, system="Be brief.")
    assert said(conversation, "Hi") == " the village"
    assert conversation.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": " the village"},
    ]


def test_no_token_is_evaluated_twice(byte_level: Tokenizer) -> None:
    network = Parrot(byte_level)
    conversation = Conversation(network, byte_level, 300)
    said(conversation, "Hi")
    before = len(network.calls)
    said(conversation, "the girl")
    tokens, start = network.calls[before]
    second = byte_level.encode(
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n the village<|im_end|>\n"
        "<|im_start|>user\nthe girl<|im_end|>\n<|im_start|>assistant\n"
    )
    assert network.cache[: len(second)] == second
    assert start > len(byte_level.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"))
    assert second[start:] == tokens


def test_a_reply_that_is_stopped_early_is_kept_so_far(byte_level: Tokenizer) -> None:
    conversation = Conversation(Parrot(byte_level), byte_level, 200)
    pieces = conversation.say("Hi", temperature=0)
    first = next(pieces).text
    pieces.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": first}


def test_an_interrupt_inside_the_network_leaves_a_cache_that_is_true(byte_level: Tokenizer) -> None:
    network = Parrot(byte_level)

    def interrupted(tokens: Sequence[int], start: int) -> np.ndarray:
        if len(network.calls) == 2 and len(tokens) == 1:
            network.cache[start:] = [0] * 5  # half written
            network.calls.append(([], start))
            raise KeyboardInterrupt
        return network(tokens, start)

    conversation = Conversation(interrupted, byte_level, 300)
    with pytest.raises(KeyboardInterrupt):
        said(conversation, "Hi")
    assert said(conversation, "the girl") == " the village"
    assert 0 not in network.cache


def test_the_oldest_exchanges_are_forgotten_but_never_the_system_message(byte_level: Tokenizer) -> None:
    network = Parrot(byte_level)
    conversation = Conversation(network, byte_level, 160, system="Be brief.")
    for i in range(12):
        assert said(conversation, f"the girl {i}") == " the village"
        told = byte_level.encode(byte_level.chat.render(conversation.messages[:-1]))
        assert network.cache[: len(told)] == told
    assert conversation.forgotten > 0
    assert conversation.forgotten + len(conversation.messages) == 1 + 24
    assert [m["role"] for m in conversation.messages[:2]] == ["system", "user"]
    assert conversation.messages[-2]["content"] == "the girl 11"


def test_a_message_too_long_is_refused_and_taken_back(byte_level: Tokenizer) -> None:
    conversation = Conversation(Parrot(byte_level), byte_level, 60)
    with pytest.raises(Refused, match="context of 60"):
        said(conversation, "the village " * 60)
    assert conversation.messages == []
    assert said(conversation, "Hi") == " the village"


def test_a_model_without_a_chat_template_is_refused_before_anything_is_said(spm: Tokenizer) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        Conversation(Parrot(spm, "the"), spm, 60).check()


def test_what_was_overwritten_in_the_cache_is_evaluated_again(byte_level: Tokenizer) -> None:
    network = Parrot(byte_level)
    conversation = Conversation(network, byte_level, 300)
    for text in ("the girl", "a village", "the girl"):
        conversation.messages.clear()
        said(conversation, text)
        told = byte_level.encode(byte_level.chat.render(conversation.messages[:-1]))
        assert network.cache[: len(told)] == told
