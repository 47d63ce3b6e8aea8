from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from scrimp.errors import Refused, UsageError
from scrimp.text.generate import Piece, generate
from scrimp.text.prompt import prompt_tokens, reply
from scrimp.text.sampling import Sampling
from scrimp.text.tokenizer import Tokenizer


class Script:
    """A network that says the given tokens one after another after ``prompt``, and records how it was called."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], says: Sequence[int]) -> None:
        self.calls: list[tuple[list[int], int]] = []
        self._says, self._first, self._V = list(says), len(prompt), tokenizer.vocab_size

    def __call__(self, tokens: Sequence[int], start: int) -> np.ndarray:
        self.calls.append((list(tokens), start))
        logits = np.zeros(self._V, np.float32)
        logits[self._says[start + len(tokens) - self._first]] = 9.0
        return logits


def run(tokenizer: Tokenizer, says: str | list[int], **options: object) -> tuple[list[Piece], Script]:
    prompt = tokenizer.encode("once")
    script = Script(tokenizer, prompt, tokenizer.encode(says, add_bos=False) if isinstance(says, str) else says)
    context = options.pop("context", 100)
    return list(generate(script, prompt, tokenizer, context=context, **options)), script  # type: ignore[arg-type]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_the_reply_ends_at_an_end_token_which_is_not_shown(byte_level: Tokenizer) -> None:
    pieces, _ = run(byte_level, " the village<|im_end|> never said")
    assert text_of(pieces) == " the village"
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert pieces[-1].tokens == (2,)


def test_each_token_is_evaluated_once_at_its_position(byte_level: Tokenizer) -> None:
    pieces, script = run(byte_level, " the village<|im_end|>")
    prompt, said = byte_level.encode("once"), [t for piece in pieces for t in piece.tokens]
    expected = [(prompt, 0)] + [([t], len(prompt) + i) for i, t in enumerate(said[:-1])]
    assert script.calls == expected


def test_a_cached_beginning_is_not_evaluated_again(byte_level: Tokenizer) -> None:
    prompt = byte_level.encode("once upon a time")
    for cached, start in ((0, 0), (2, 2), (len(prompt), len(prompt) - 1), (99, len(prompt) - 1)):
        script = Script(byte_level, prompt, [2])
        list(generate(script, prompt, byte_level, context=100, cached=cached))
        assert script.calls == [(prompt[start:], start)]


def test_a_stop_string_across_tokens_ends_the_reply(byte_level: Tokenizer) -> None:
    pieces, _ = run(byte_level, " red riding hood and so on", stops=["ng ho"])
    assert text_of(pieces) == " red ridi"
    assert pieces[-1].finish_reason == "stop"


def test_text_held_back_for_a_stop_that_never_came_is_given_at_the_end(byte_level: Tokenizer) -> None:
    pieces, _ = run(byte_level, " red ri<|im_end|>", stops=["riding"])
    assert text_of(pieces) == " red ri"


def test_max_tokens_ends_with_length(byte_level: Tokenizer) -> None:
    pieces, script = run(byte_level, " the little girl lived", max_tokens=2)
    assert (len(pieces), pieces[-1].finish_reason, len(script.calls)) == (2, "length", 2)


def test_the_context_is_never_exceeded(byte_level: Tokenizer) -> None:
    prompt = byte_level.encode("once")
    pieces, script = run(byte_level, " the little girl lived in a village", context=len(prompt) + 3, max_tokens=50)
    assert (len(pieces), pieces[-1].finish_reason) == (3, "length")
    assert max(start + len(tokens) for tokens, start in script.calls) <= len(prompt) + 3


def test_a_prompt_that_fills_the_context_is_refused_with_both_numbers(byte_level: Tokenizer) -> None:
    with pytest.raises(Refused, match=r"9 tokens.*context of 8"):
        generate(Script(byte_level, [], []), [5] * 9, byte_level, context=8)
    with pytest.raises(Refused, match=r"8 tokens.*context of 8"):
        generate(Script(byte_level, [], []), [5] * 8, byte_level, context=8)


def test_an_empty_prompt_and_no_tokens_are_refused_at_once(byte_level: Tokenizer) -> None:
    with pytest.raises(UsageError, match="empty"):
        generate(Script(byte_level, [], []), [], byte_level, context=8)
    with pytest.raises(UsageError, match="max_tokens is 0"):
        generate(Script(byte_level, [], []), [5], byte_level, context=8, max_tokens=0)


def test_an_emoji_comes_whole_and_half_of_one_as_a_replacement(byte_level: Tokenizer) -> None:
    emoji = byte_level.encode("👍🏽")
    pieces, _ = run(byte_level, [*emoji, 2])
    assert text_of(pieces) == "👍🏽"
    assert all(len(piece.text.encode()) in (0, 4) for piece in pieces)
    assert text_of(run(byte_level, [*emoji[:1], 2])[0]) == "�"


def test_a_continuation_keeps_its_space_and_a_beginning_has_none(spm: Tokenizer) -> None:
    the = spm.encode("the", add_bos=False)
    for prompt, text in ((spm.encode("once"), " the"), ([1], "the")):
        pieces = list(generate(Script(spm, prompt, [*the, 2]), prompt, spm, context=50))
        assert text_of(pieces) == text


def test_timings_count_prefill_and_decode_apart(byte_level: Tokenizer) -> None:
    pieces, script = run(byte_level, " the village<|im_end|>")
    timings = pieces[-1].timings
    assert timings.prefill_tokens == len(byte_level.encode("once"))
    assert timings.decode_tokens == len(script.calls) - 1
    assert timings.prefill_tokens_per_s > 0
    assert timings.decode_tokens_per_s > 0


def test_the_same_seed_tells_the_same_story(byte_level: Tokenizer) -> None:
    def flat(tokens: Sequence[int], start: int) -> np.ndarray:
        return np.zeros(byte_level.vocab_size, np.float32)

    stories = [
        [p.tokens for p in generate(flat, [5], byte_level, Sampling(seed=seed), context=50, max_tokens=20)]
        for seed in (1, 1, 2)
    ]
    assert stories[0] == stories[1] != stories[2]


def test_options_by_name_reach_the_sampler(byte_level: Tokenizer) -> None:
    prompt = byte_level.encode("once")
    script = Script(byte_level, prompt, byte_level.encode(" the village"))
    pieces = list(reply(script, prompt, byte_level, 50, max_tokens=9, temperature=0, stop=" v"))
    assert text_of(pieces) == " the"
    with pytest.raises(UsageError, match="top_k"):
        reply(script, prompt, byte_level, 50, top_k=-3)


def test_a_prompt_is_raw_text_or_a_conversation(byte_level: Tokenizer) -> None:
    assert prompt_tokens(byte_level, "once", raw=True) == byte_level.encode("once")
    chatml = "<|im_start|>user\nonce<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_tokens(byte_level, "once") == byte_level.encode(chatml)
    assert prompt_tokens(byte_level, [{"role": "user", "content": "once"}]) == byte_level.encode(chatml)
    with pytest.raises(UsageError, match="raw"):
        prompt_tokens(byte_level, [{"role": "user", "content": "once"}], raw=True)
