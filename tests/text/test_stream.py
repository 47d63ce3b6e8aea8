from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scrimp.text.stream import TextStream
from scrimp.text.tokenizer import Tokenizer


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(i) for i in ids), stream.flush()]


@given(st.lists(st.integers(0, 470), max_size=40))
def test_any_tokens_stream_to_what_they_decode_to(byte_level: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(byte_level, ids)) == byte_level.decode(ids)


@given(st.lists(st.integers(0, 290), max_size=40))
def test_any_sentencepiece_tokens_do_too(spm: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(spm, ids)) == spm.decode(ids)


@given(st.text(min_size=1))
def test_no_character_is_ever_cut(byte_level: Tokenizer, spm: Tokenizer, text: str) -> None:
    text = text.replace("▁", "_").replace("�", "?")
    for tokenizer in (byte_level, spm):
        pieces = streamed(tokenizer, tokenizer.encode(text, add_bos=False))
        assert "�" not in "".join(pieces)
        assert "".join(pieces) == text


def test_an_emoji_appears_with_its_last_byte(spm: Tokenizer) -> None:
    assert streamed(spm, spm.encode("😀", add_bos=False)) == ["", "", "", "", "😀", ""]


def test_an_unfinished_character_is_flushed_as_one_replacement(spm: Tokenizer) -> None:
    assert streamed(spm, spm.encode("😀", add_bos=False)[:-1]) == ["", "", "", "", "�"]


def test_the_leading_space_belongs_to_a_text_that_continues(spm: Tokenizer) -> None:
    (the,) = spm.encode("the", add_bos=False)
    assert TextStream(spm).push(the) == "the"
    assert TextStream(spm, continues=True).push(the) == " the"


def test_only_the_first_leading_space_is_taken(spm: Tokenizer) -> None:
    assert "".join(streamed(spm, spm.encode("  the the", add_bos=False))) == "  the the"


def test_special_tokens_are_silent_and_keep_the_beginning(spm: Tokenizer) -> None:
    assert streamed(spm, spm.encode("the")) == ["", "the", ""]
