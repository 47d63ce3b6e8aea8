"""Tokenizers inside GGUF files, in the ``tokenizer.ggml.*`` keys: byte-level BPE ("gpt2") and SentencePiece ("llama").

Source of keys and defaults: the GGUF specification (ggml/docs/gguf.md) and llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scrimp.errors import Refused
from scrimp.text import sentencepiece
from scrimp.text.malformed import check_distinct, malformed, refusing
from scrimp.text.pretokenizers import BEGINS_WITH_BOS, COMPOSES_ACCENTS, TAKES_WHOLE_WORDS, pretokenizer
from scrimp.text.sentencepiece import Pieces, TokenType
from scrimp.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
END_KEYS = ("eos", "eot", "eom")


def load(metadata: Mapping[str, object]) -> Tokenizer:
    model = _get(metadata, "model", str, None)
    tokens = _list(metadata, "tokens", str)
    if model is None or tokens is None:
        raise malformed(f"the file has no tokenizer.ggml.{'model' if model is None else 'tokens'}")
    check_distinct(tokens)
    types = _list(metadata, "token_type", int, len(tokens)) or [int(TokenType.NORMAL)] * len(tokens)
    ids = {key: _id(metadata, key, len(tokens)) for key in {*ROLES.values(), *END_KEYS}}
    if model == "gpt2":
        backend, begins = _byte_level(metadata, tokens, types)
    elif model == "llama":
        backend, begins = _sentencepiece(metadata, tokens, types, ids["unknown"])
    else:
        raise Refused(
            f"The file has a tokenizer of the kind '{model[:40]}', which scrimp does not read.",
            hint="gpt2 and llama are read; the model's Hugging Face directory may have a tokenizer.json",
        )
    special = {role: tokens[i] for role, key in ROLES.items() if (i := ids[key]) is not None}
    add_bos = _get(metadata, "add_bos_token", bool, begins) and "bos_token" in special
    with refusing():
        _recognise_special(backend, tokens, types, {i for i in ids.values() if i is not None})
        if add_bos:
            _begin_with(backend, special["bos_token"], ids["bos"])
    return Tokenizer(
        backend,
        special=special,
        add_bos=add_bos,
        end_ids=[i for key in END_KEYS if (i := ids[key]) is not None],
        chat_template=_chat_template(metadata),
    )


def _byte_level(metadata: Mapping[str, object], tokens: list[str], types: list[int]) -> tuple[Backend, bool]:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, normalizers
    from tokenizers.models import BPE

    name = _get(metadata, "pre", str, "default")
    words = pretokenizer(name)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = _merges(_list(metadata, "merges", str) or [], vocabulary)
    with refusing():
        backend = Backend(BPE(vocabulary, merges, ignore_merges=name in TAKES_WHOLE_WORDS))
    backend.pre_tokenizer = words
    backend.decoder = decoders.ByteLevel()
    if name in COMPOSES_ACCENTS:
        backend.normalizer = normalizers.NFC()
    return backend, name in BEGINS_WITH_BOS


def _merges(lines: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    for i, line in enumerate(lines):
        left, _, right = line.partition(" ")
        if left not in vocabulary or right not in vocabulary or left + right not in vocabulary:
            raise malformed(f"merge {i:,}, {line[:40]!r}, names a token that does not exist")
        merges.append((left, right))
    return merges


def _sentencepiece(
    metadata: Mapping[str, object], tokens: list[str], types: list[int], unknown: int | None
) -> tuple[Backend, bool]:
    scores = _list(metadata, "scores", float, len(tokens))
    if scores is None:
        raise malformed("the file has no tokenizer.ggml.scores")
    if TokenType.UNKNOWN not in types and unknown is not None:
        types[unknown] = TokenType.UNKNOWN
    with refusing():
        backend = sentencepiece.build(
            Pieces(tokens, scores, types), space_prefix=_get(metadata, "add_space_prefix", bool, True)
        )
    return backend, True


def _recognise_special(backend: Backend, tokens: list[str], types: list[int], named: set[int]) -> None:
    """Control tokens, and those with a role, are found in text and hidden in output; user-defined ones only found."""
    from tokenizers import AddedToken

    hidden = {TokenType.CONTROL, TokenType.UNKNOWN}
    is_hidden = [kind in hidden or i in named for i, kind in enumerate(types)]
    backend.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, hide in zip(tokens, is_hidden, strict=True) if hide]
    )
    user_defined = [t for i, t in enumerate(tokens) if types[i] == TokenType.USER_DEFINED and not is_hidden[i]]
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in user_defined])


def _begin_with(backend: Backend, bos: str, bos_id: int | None) -> None:
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", "$B"], special_tokens=[(bos, bos_id)]
    )


def _chat_template(metadata: Mapping[str, object]) -> str | None:
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise malformed(f"tokenizer.chat_template is {type(template).__name__}, not text")
    return template


def _get(metadata: Mapping[str, object], key: str, kind: type, default: Any) -> Any:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if value is not default and type(value) is not kind:
        raise malformed(f"tokenizer.ggml.{key} is {type(value).__name__}, not {kind.__name__}")
    return value


def _list(metadata: Mapping[str, object], key: str, kind: type, length: int | None = None) -> list[Any] | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or any(type(item) is not kind for item in value):
        raise malformed(f"tokenizer.ggml.{key} is not a list of {kind.__name__}")
    if length is not None and len(value) != length:
        raise malformed(f"tokenizer.ggml.{key} has {len(value):,} entries for {length:,} tokens")
    return list(value)


def _id(metadata: Mapping[str, object], key: str, vocab_size: int) -> int | None:
    value = _get(metadata, f"{key}_token_id", int, None)
    if value is not None and not 0 <= value < vocab_size:
        raise malformed(f"tokenizer.ggml.{key}_token_id is {value:,}, but there are {vocab_size:,} tokens")
    return None if value is None else int(value)
