from __future__ import annotations

import pytest

from scrimp.errors import Refused, ScrimpError
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.text.spelling import byte_alphabet
from scrimp.text.tokenizer import Tokenizer, load


def test_a_model_without_a_tokenizer_says_so() -> None:
    with pytest.raises(Refused, match="no tokenizer"):
        load(TokenizerData.none())


def test_token_bytes_of_all_tokens_spell_the_text(byte_level: Tokenizer, spm: Tokenizer, page: str) -> None:
    assert b"".join(map(byte_level.token_bytes, byte_level.encode(page))) == page.encode()
    assert b"".join(map(spm.token_bytes, spm.encode(page, add_bos=False))) == b" " + page.encode()


def test_a_special_token_is_its_name(byte_level: Tokenizer) -> None:
    assert byte_level.token_bytes(1) == b"<|im_start|>"


def test_padding_rows_of_an_embedding_are_no_text(byte_level: Tokenizer) -> None:
    assert byte_level.decode([byte_level.vocab_size + 7]) == ""


def test_a_negative_id_is_an_error(byte_level: Tokenizer) -> None:
    with pytest.raises(ScrimpError, match="-1 is not a token id"):
        byte_level.token_bytes(-1)


def test_half_a_surrogate_pair_is_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(Refused, match="surrogate"):
        byte_level.encode("a\ud800")


def test_broken_utf8_decodes_to_replacement_characters(byte_level: Tokenizer) -> None:
    half = byte_level.encode("é")[:1] if len(byte_level.encode("é")) > 1 else byte_level.encode("漢")[:1]
    assert byte_level.decode(half) == "�"


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    assert set(byte_alphabet()) == set(ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


def test_decoding_agrees_with_the_tokenizers_library(byte_level: Tokenizer, spm: Tokenizer, page: str) -> None:
    for tokenizer in (byte_level, spm):
        ids = tokenizer.encode(page, add_bos=False)
        assert tokenizer.decode(ids) == tokenizer.backend.decode(ids)
