from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrimp.errors import Refused
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.text.sentencepiece import Pieces, TokenType
from scrimp.text.tokenizer import Tokenizer, load

WORDS = [
    " ",
    *"Onceupatimhlg,.",
    "é",
    " t",
    "he",
    " a",
    "im",
    " the",
    "on",
    "ime",
    " O",
    " On",
    "ce",
    " Once",
    " time",
    "  ",
]
PIECES = [
    b"<unk>",
    b"\n<s>\n",
    b"\n</s>\n",
    *(f"<0x{b:02X}>".encode() for b in range(256)),
    *(w.encode() for w in WORDS),
]


def record(score: float, text: bytes) -> bytes:
    return struct.pack("<fi", score, len(text)) + text


def tok_bin() -> bytes:
    scores = [0.0] * 259 + [-float(i) for i in range(len(WORDS))]
    return struct.pack("<i", 7) + b"".join(record(s, t) for s, t in zip(scores, PIECES, strict=True))


def write(directory: Path, data: bytes, vocab_size: int = len(PIECES)) -> TokenizerData:
    path = directory / "tok.bin"
    path.write_bytes(data)
    return TokenizerData.llama2c(path, vocab_size)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load(write(tmp_path_factory.mktemp("llama2c"), tok_bin()))


def as_run_c_encodes(text: str) -> list[int]:
    """The algorithm of llama2.c: characters or their bytes, then always the leftmost of the best-scored pairs."""
    rank = {word.encode(): 259 + i for i, word in enumerate(WORDS)}
    ids: list[int] = []
    for character in (" " + text) if text else "":
        data = character.encode()
        ids += [rank[data]] if data in rank else [3 + byte for byte in data]
    while True:
        pairs = [
            (rank[PIECES[ids[i]] + PIECES[ids[i + 1]]], i)
            for i in range(len(ids) - 1)
            if PIECES[ids[i]] + PIECES[ids[i + 1]] in rank
        ]
        if not pairs:
            return [1, *ids]
        merged, i = min(pairs)
        ids[i : i + 2] = [merged]


@given(st.text(st.sampled_from("".join(WORDS)) | st.characters(exclude_characters="▁", exclude_categories=["Cs"])))
def test_ids_equal_those_of_run_c(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text) == as_run_c_encodes(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_once_upon_a_time(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Once the time")
    assert [tokenizer.token_bytes(i) for i in ids] == [b"<s>", b" Once", b" the", b" time"]


def test_bos_ends_a_story_as_eos_does(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (1, {1, 2}, len(PIECES))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends in token 0"),
        (tok_bin()[:-1], "ends in token"),
        (tok_bin()[:100], "ends in token"),
        (tok_bin() + b"\0", "1 bytes follow"),
        (struct.pack("<i", 7) + struct.pack("<fi", 0.0, 2**31 - 1), "2,147,483,647 bytes long"),
        (struct.pack("<i", 7) + struct.pack("<fi", 0.0, -1), "-1 bytes long"),
        (tok_bin().replace("é".encode(), b"\xc3\x28"), "is not UTF-8"),
        (tok_bin().replace(record(0.0, b"<0x01>"), record(0.0, b"<0x00>")), "are both '<0x00>'"),
        (tok_bin().replace(record(0.0, b"<0x01>"), record(float("nan"), b"<0x01>")), "score nan"),
        (tok_bin().replace(record(0.0, b"<0x01>"), record(0.0, b"<s>")), "are both '<s>'"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        load(write(tmp_path, data))
    assert refused.value.hint


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_load_or_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes, vocab_size: int) -> None:
    directory = tmp_path_factory.getbasetemp()
    with pytest.raises(Refused):
        load(write(directory, data, vocab_size))


def test_stories260k_reads_its_own_language(shared_data: Callable[[str], Path]) -> None:
    tokenizer = load(TokenizerData.llama2c(shared_data("stories260K/tok512.bin"), 512))
    assert tokenizer.encode("Once upon a time") == [1, 403, 407, 261, 378]


def test_pieces_are_what_the_file_says() -> None:
    from scrimp.text.from_llama2c import read_pieces

    pieces = read_pieces(tok_bin(), len(PIECES))
    assert isinstance(pieces, Pieces)
    assert pieces.texts[:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert (pieces.texts[-4], pieces.scores[-4]) == ("ce", -float(len(WORDS) - 4))
    assert pieces.types[258:260] == [TokenType.BYTE, TokenType.NORMAL]
