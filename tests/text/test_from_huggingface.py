from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrimp.errors import Refused
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.text.tokenizer import Tokenizer, load


@pytest.fixture
def directory(tmp_path: Path, byte_level: Tokenizer) -> Path:
    (tmp_path / "tokenizer.json").write_text(byte_level.backend.to_str(), encoding="utf-8")
    return tmp_path


def opened(directory: Path, **files: Any) -> Tokenizer:
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return load(TokenizerData.huggingface(directory))


def test_a_saved_tokenizer_opens_as_an_equal_one(tmp_path: Path, byte_level: Tokenizer, spm: Tokenizer) -> None:
    for name, tokenizer in (("bytes", byte_level), ("spm", spm)):
        tokenizer.save(tmp_path / name)
        again = load(TokenizerData.huggingface(tmp_path / name))
        assert again == tokenizer
        merges = json.loads((tmp_path / name / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
        assert merges
        assert all(isinstance(merge, str) for merge in merges)  # read sooner than pairs
        assert again.encode("<s>once upon é") == tokenizer.encode("<s>once upon é")
    assert byte_level != spm


def test_merges_of_tokens_with_spaces_stay_pairs(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE

    backend = Backend(BPE({"a": 0, " ": 1, "a ": 2, "b": 3, "a b": 4}, [("a", " "), ("a ", "b")]))
    backend.decoder = None
    saved = Tokenizer(backend, special={}, add_bos=False)
    saved.save(tmp_path)
    assert opened(tmp_path).encode("a b") == saved.encode("a b") == [4]


def test_transformers_opens_a_saved_tokenizer_alike(tmp_path: Path, spm: Tokenizer, page: str) -> None:
    transformers = pytest.importorskip("transformers")
    spm.chat_template = "{{ messages[0]['content'] }}"
    spm.save(tmp_path)
    spm.chat_template = None
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(page)["input_ids"] == spm.encode(page)
    assert theirs(page, add_special_tokens=False)["input_ids"] == spm.encode(page, add_bos=False)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (spm.bos_id, spm.eos_id)
    assert theirs.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"


def test_special_tokens_are_read_as_text_or_as_objects(directory: Path) -> None:
    tokenizer = opened(
        directory, tokenizer_config={"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"}
    )
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, False)


def test_the_config_overrides_the_special_tokens_map(directory: Path) -> None:
    tokenizer = opened(
        directory, special_tokens_map={"eos_token": "<|endoftext|>"}, tokenizer_config={"eos_token": "<|im_end|>"}
    )
    assert tokenizer.eos_id == 2


def test_bos_is_added_where_the_config_or_the_file_itself_adds_it(
    directory: Path, tmp_path_factory: Any, spm: Tokenizer
) -> None:
    assert opened(directory, tokenizer_config={"bos_token": "<|im_start|>", "add_bos_token": True}).add_bos
    other = tmp_path_factory.mktemp("spm")
    spm.save(other)
    assert opened(other, tokenizer_config={"bos_token": "<s>"}).add_bos
    assert not opened(other, tokenizer_config={"bos_token": "<s>", "add_bos_token": False}).add_bos


@pytest.mark.parametrize("ids", [5, [5, 6], [5, 6, 10**9]])
def test_all_end_ids_of_the_generation_config_end_a_reply(directory: Path, ids: Any) -> None:
    ends = opened(directory, generation_config={"eos_token_id": ids}, config={"eos_token_id": 9}).eos_ids
    assert {0, 2, 5} <= ends
    assert 9 not in ends
    assert 10**9 not in ends


def test_a_template_file_goes_before_the_config(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("from file")
    assert opened(directory, tokenizer_config={"chat_template": "from config"}).chat_template == "from file"


def test_of_named_templates_the_default_is_taken(directory: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert opened(directory, tokenizer_config={"chat_template": named}).chat_template == "d"


def test_wordpiece_text_is_put_together_again(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    backend = Backend(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "now": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece("##")
    (tmp_path / "tokenizer.json").write_text(backend.to_str())
    tokenizer = opened(tmp_path)
    assert tokenizer.decode(tokenizer.encode("playing now")) == "playing now"


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no tokenizer\.json"):
        load(TokenizerData.huggingface(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", b"", "malformed"),
        ("tokenizer.json", b"{}", "malformed"),
        (
            "tokenizer.json",
            b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":[["a","b"]]}}',
            "malformed",
        ),
        ("tokenizer.json", b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}', "malformed"),
        ("tokenizer.json", b'{"version":"1.0","model":{"type":"Foo"}}', "malformed"),
        ("tokenizer.json", b"\xff\xfe", "not UTF-8"),
        ("tokenizer.json", b"[" * 100_000, "malformed"),
        ("tokenizer_config.json", b"[]", "not a JSON object"),
        ("tokenizer_config.json", b"{", "not JSON"),
        ("tokenizer_config.json", b"[" * 100_000, "not JSON"),
        ("tokenizer_config.json", b'{"bos_token": 5}', "bos_token is int"),
        ("tokenizer_config.json", b'{"chat_template": 5}', "chat_template is int"),
        ("generation_config.json", b'{"eos_token_id": "x"}', "eos_token_id in generation_config"),
        ("generation_config.json", b'{"eos_token_id": [-1]}', "eos_token_id in generation_config"),
        ("chat_template.jinja", b"\xff", "not UTF-8"),
    ],
)
def test_malformed_files_are_refused(directory: Path, name: str, content: bytes, says: str) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(Refused, match=says):
        opened(directory)


def test_an_unknown_decoder_is_refused_at_once(directory: Path) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders

    backend = Backend.from_file(str(directory / "tokenizer.json"))
    backend.decoder = decoders.CTC()
    backend.save(str(directory / "tokenizer.json"))
    with pytest.raises(Refused, match="CTC"):
        opened(directory)
