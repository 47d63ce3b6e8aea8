"""Text to token ids and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scrimp.errors import Refused, ScrimpError
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.text.malformed import refusing
from scrimp.text.spelling import Spelling, spelling_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

    from scrimp.text.chat import ChatTemplate

ENDS_A_REPLY = frozenset(
    {
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|eot|>",
        "<EOT>",
        "<|return|>",
        "<|call|>",
        "<end_of_turn>",
        "<|end_of_turn|>",
        "<|END_OF_TURN_TOKEN|>",
    }
)
"""Special tokens that end a reply whatever the file says: models are often stored with only one of several."""


class Tokenizer:
    """A tokenizer of the ``tokenizers`` library together with what that library does not know: which tokens begin
    and end a text, and how a conversation is written.

    ``special`` maps roles to token strings, as chat templates name them: ``bos_token``, ``eos_token``, ``unk_token``,
    ``pad_token``. Ids of padding rows of an embedding, which no token has, decode to nothing.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        special: Mapping[str, str],
        add_bos: bool,
        end_ids: Iterable[int] = (),
        chat_template: str | None = None,
    ) -> None:
        """``end_ids``: tokens that end a reply, besides ``eos_token`` and the special tokens in ENDS_A_REPLY."""
        self.backend = backend
        self.special = {role: token for role, token in special.items() if backend.token_to_id(token) is not None}
        self.bos_id = self._role_id("bos_token")
        self.eos_id = self._role_id("eos_token")
        self.add_bos = add_bos and self.bos_id is not None
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._added = {i: token.content.encode() for i, token in added.items()}
        ends = {i for i in self.special_ids if added[i].content in ENDS_A_REPLY}
        self.eos_ids = frozenset({*ends, *end_ids} | ({self.eos_id} if self.eos_id is not None else set()))
        self._bytes: dict[int, bytes] = {}

    def _role_id(self, role: str) -> int | None:
        return self.backend.token_to_id(self.special[role]) if role in self.special else None

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def least_size(self) -> int:
        """What ``vocab_size`` is unless ids have gaps, without listing the vocabulary (20 ms of 50,000 words)."""
        return max(self.backend.get_vocab_size(with_added_tokens=True), max(self._added, default=-1) + 1)

    @cached_property
    def spelling(self) -> Spelling:
        decoder = self.backend.decoder
        return spelling_of(json.loads(decoder.__getstate__()) if decoder is not None else None)

    @cached_property
    def chat(self) -> ChatTemplate:
        """The chat template, whose process starts on first use and ends with this object."""
        from scrimp.text.chat import ChatTemplate

        return ChatTemplate.of(self)

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """Token ids of ``text``; special tokens written in it are recognised. ``add_bos`` puts the BOS token first
        where this tokenizer adds one at all (``self.add_bos``)."""
        try:
            with refusing(TypeError, UnicodeEncodeError):
                ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):  # which of them depends on the version of the library
            raise _not_unicode() from None
        if add_bos and self.add_bos and self.bos_id is not None:
            return [self.bos_id, *ids]
        return ids

    def encode_whole(self, text: str) -> list[int]:
        """Token ids of ``text`` with the special tokens that the tokenizer puts around a text, as encoders read it."""
        try:
            with refusing(TypeError, UnicodeEncodeError):
                ids: list[int] = self.backend.encode(text, add_special_tokens=True).ids
        except (TypeError, UnicodeEncodeError):
            raise _not_unicode() from None
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for, which may be part of a character. A special token is its own name."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spell(token_id)
        return known

    def _spell(self, token_id: int) -> bytes:
        if token_id < 0:
            raise ScrimpError(f"{token_id} is not a token id.", hint=f"ids run from 0 to {self.vocab_size - 1:,}")
        if token_id in self._added:
            return self._added[token_id]
        token = self.backend.id_to_token(token_id)
        return self.spelling.to_bytes(token) if token is not None else b""

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Text of a whole sequence; bytes that are no UTF-8 become U+FFFD. Special tokens are shown only if asked."""
        data = b"".join(self.token_bytes(i) for i in ids if special or i not in self.special_ids)
        return data.removeprefix(b" " if self.spelling.leading_space else b"").decode("utf-8", "replace")

    def save(self, directory: Path) -> None:
        """Writes the files a Hugging Face directory has, and from which an equal tokenizer is loaded."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": self.add_bos,
            "clean_up_tokenization_spaces": False,
            **self.special,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        generation: dict[str, object] = {"eos_token_id": sorted(self.eos_ids)}
        if self.bos_id is not None:
            generation["bos_token_id"] = self.bos_id
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.json").write_text(_quick_to_read(self.backend.to_str()), encoding="utf-8")
        for name, content in (("tokenizer_config.json", config), ("generation_config.json", generation)):
            (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self._identity() == other._identity() and self.backend.to_str() == other.backend.to_str()

    def _identity(self) -> tuple[object, ...]:
        return self.special, self.add_bos, self.eos_ids, self.chat_template


def _quick_to_read(text: str) -> str:
    """A ``tokenizer.json`` whose merges are "left right", as they were written before they were pairs: what reads both
    needs a sixth less time for it. Pairs stay where a token has a space."""
    whole = json.loads(text)
    merges = whole["model"].get("merges")
    if not merges or any(" " in token for pair in merges for token in pair):
        return text
    whole["model"]["merges"] = [" ".join(pair) for pair in merges]
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def _not_unicode() -> Refused:
    return Refused("The text is not Unicode: it holds half of a surrogate pair.",
                   hint="read it as UTF-8 with errors='replace'")  # fmt: skip


def load(data: TokenizerData, *, rows: int | None = None, quick: bool = False) -> Tokenizer:
    """The tokenizer a source described. Refuses malformed data, a network that has none, and more tokens than the
    embedding has ``rows``; ``quick`` ones only as far as ``least_size`` shows, others when they are to be run."""
    tokenizer = _load(data)
    if rows is not None and (size := tokenizer.least_size if quick else tokenizer.vocab_size) > rows:
        raise Refused(f"The tokenizer has {size:,} tokens, the embedding {rows:,} rows.",
                      hint="the tokenizer belongs to another model")  # fmt: skip
    return tokenizer


def _load(data: TokenizerData) -> Tokenizer:
    if data.kind == "huggingface" and data.path is not None:
        from scrimp.text import from_huggingface

        return from_huggingface.load(data.path)
    if data.kind == "gguf" and data.metadata is not None:
        from scrimp.text import from_gguf

        return from_gguf.load(data.metadata)
    if data.kind == "llama2c" and data.path is not None and data.vocab_size is not None:
        from scrimp.text import from_llama2c

        return from_llama2c.load(data.path, data.vocab_size)
    raise Refused("This model has no tokenizer.", hint="name one with --tokenizer, or pass token ids")
