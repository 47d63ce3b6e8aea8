"""What a sentence-transformers directory says of embeddings: how hidden states become a vector, and of how many tokens.

Read from ``modules.json``, ``1_Pooling/config.json`` and ``sentence_bert_config.json``; kept in the config of the
network as ``sentence_embedding``, so that a store has it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scrimp.errors import Refused
from scrimp.sources.json_object import read_json
from scrimp.sources.mapped import check_regular

KEY = "sentence_embedding"
MODULES, LIMITS = "modules.json", "sentence_bert_config.json"
_MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
_KNOWN = ("Transformer", "Pooling", "Normalize")
_HINT = "it is no plain encoder; embeddings of it would be wrong without that"


def embedding_of(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """``{"pooling": "mean" | "first", "max_tokens": …}`` and notes; Refused, by name, for what is not done here."""
    found: dict[str, Any] = {"pooling": "mean"}
    notes = []
    if (directory / MODULES).is_file():
        found["pooling"] = _pooling(directory)
    else:
        notes.append(f"no {MODULES} says how to pool: embeddings are means over all tokens")
    if (directory / LIMITS).is_file():
        limits = read_json(directory / LIMITS)
        if limits.get("do_lower_case"):
            raise Refused(f"{directory / LIMITS} asks for lower case before the tokenizer, which is not supported.",
                          hint="let the tokenizer do it")  # fmt: skip
        if limits.get("max_seq_length") is not None:
            found["max_tokens"] = limits["max_seq_length"]
    return found, notes


def _pooling(directory: Path) -> str:
    path = directory / MODULES
    check_regular(path)
    try:
        modules = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < 100_000 else None
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]  # type: ignore[union-attr]
        folders = {kind: str(module.get("path", "")) for kind, module in zip(kinds, modules, strict=True)}  # type: ignore[arg-type]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise Refused(f"{path} is no list of modules.", hint="the file is damaged") from None
    if other := [kind for kind in kinds if kind not in _KNOWN]:
        raise Refused(f"{path} names a module '{other[0][:40]}', which is not supported.", hint=_HINT)
    if kinds[:2] != ["Transformer", "Pooling"] or len(set(kinds)) != len(kinds):
        raise Refused(f"{path} names {', '.join(kinds)[:80]}, not a Transformer and one Pooling.", hint=_HINT)
    folder = folders["Pooling"]
    if Path(folder).name != folder or folder in ("", "..") or not (directory / folder / "config.json").is_file():
        raise Refused(f"{directory} lacks the config of its Pooling, '{folder[:40]}/config.json'.",
                      hint="the download is incomplete")  # fmt: skip
    config = read_json(directory / folder / "config.json")
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _MODES:
        named = ", ".join(modes)[:120] or "nothing"
        raise Refused(f"{directory}: its Pooling is {named}, which is not supported.",
                      hint=f"supported: {' or '.join(_MODES)}, alone")  # fmt: skip
    return _MODES[modes[0]]
