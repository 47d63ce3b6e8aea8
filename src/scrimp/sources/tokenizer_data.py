"""How a source hands its tokenizer over: where the data lies, and in which manner. ``text.tokenizer`` builds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["huggingface", "gguf", "llama2c", "none"]


@dataclass(frozen=True)
class TokenizerData:
    """Exactly the fields that ``kind`` needs are set; use the constructors below.

    ============  ==================================================================================================
    huggingface   ``path``: a directory with ``tokenizer.json`` and, where present, ``tokenizer_config.json``,
                  ``generation_config.json``, ``special_tokens_map.json``, ``chat_template.jinja``
    gguf          ``metadata``: the ``tokenizer.*`` keys of the file, as plain Python values
    llama2c       ``path``: a ``tok*.bin``; ``vocab_size``: how many tokens the network has, which the file does not say
    none          nothing: the network reads no text
    ============  ==================================================================================================
    """

    kind: Kind
    path: Path | None = None
    metadata: Mapping[str, object] | None = None
    vocab_size: int | None = None

    @classmethod
    def huggingface(cls, directory: Path) -> TokenizerData:
        return cls("huggingface", path=directory)

    @classmethod
    def gguf(cls, metadata: Mapping[str, object]) -> TokenizerData:
        return cls("gguf", metadata=metadata)

    @classmethod
    def llama2c(cls, path: Path, vocab_size: int) -> TokenizerData:
        return cls("llama2c", path=path, vocab_size=vocab_size)

    @classmethod
    def none(cls) -> TokenizerData:
        return cls("none")
