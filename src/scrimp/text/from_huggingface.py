"""Tokenizers in Hugging Face directories: ``tokenizer.json`` and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrimp.errors import Refused
from scrimp.text.malformed import malformed, refusing
from scrimp.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
MAX_JSON_BYTES = 512 * 1024 * 1024


def load(directory: Path) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    path = directory / "tokenizer.json"
    if not path.is_file():
        raise Refused(
            f"{directory} has no tokenizer.json.",
            hint="save one with transformers: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    with refusing():
        backend = Backend.from_str(_read(path))
        backend.no_padding()
        backend.no_truncation()  # a stored batch shape is no property of the language
        vocab_size = backend.get_vocab_size(with_added_tokens=True)
    config = _object(directory / "tokenizer_config.json")
    special = _special(_object(directory / "special_tokens_map.json") | config)
    tokenizer = Tokenizer(
        backend,
        special=special,
        add_bos=_add_bos(config, backend, special),
        end_ids=_end_ids(directory, vocab_size),
        chat_template=_chat_template(directory, config),
    )
    tokenizer.spelling  # noqa: B018  refuses an unknown decoder now rather than in the middle of a text
    return tokenizer


def _read(path: Path) -> str:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise malformed(f"{path.name} has {path.stat().st_size:,} bytes, more than {MAX_JSON_BYTES:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise malformed(f"{path.name} is not UTF-8") from None


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; an empty one where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError):
        raise malformed(f"{path.name} is not JSON") from None
    if not isinstance(value, dict):
        raise malformed(f"{path.name} is not a JSON object")
    return value


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    special = {}
    for role in ROLES:
        value = config.get(role)
        text = value.get("content") if isinstance(value, dict) else value
        if text is not None and not isinstance(text, str):
            raise malformed(f"{role} is {type(text).__name__}, not text")
        if text:
            special[role] = text
    return special


def _add_bos(config: Mapping[str, Any], backend: Backend, special: Mapping[str, str]) -> bool:
    """What the config says; where it says nothing, what ``tokenizer.json`` does to an empty text."""
    said = config.get("add_bos_token")
    if isinstance(said, bool):
        return said
    with refusing():
        begun = backend.encode("", add_special_tokens=True).tokens
    return bool(begun) and begun[0] == special.get("bos_token")


def _end_ids(directory: Path, vocab_size: int) -> list[int]:
    """``eos_token_id`` of generation_config.json, or else of config.json: one id or a list."""
    for name in ("generation_config.json", "config.json"):
        value = _object(directory / name).get("eos_token_id")
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        if any(type(i) is not int or i < 0 for i in ids):
            raise malformed(f"eos_token_id in {name} is {str(value)[:60]}")
        return [i for i in ids if i < vocab_size]
    return []


def _chat_template(directory: Path, config: Mapping[str, Any]) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return _read(path)
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {str(t.get("name")): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise malformed(f"chat_template is {type(template).__name__}, not text")
    return template
