"""How byte-level BPE tokenizers cut text into words before merging, by the names GGUF files give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scrimp.errors import Refused, nearest

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

LLAMA3 = f"{_CONTRACTIONS}|{_LETTERS}|\\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
QWEN2 = f"{_CONTRACTIONS}|{_LETTERS}|\\p{{N}}|{_PUNCTUATION_AND_SPACE}"
# llama.cpp's "default", for files that name none: four cuts, each within the pieces of the one before
DEFAULT = (
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
)


def _gpt2() -> PreTokenizer:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_then_gpt2() -> PreTokenizer:
    from tokenizers.pre_tokenizers import Digits, Sequence

    return Sequence([Digits(individual_digits=True), _gpt2()])


def _split(*patterns: str) -> Callable[[], PreTokenizer]:
    def build() -> PreTokenizer:
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

        cuts = [Split(Regex(pattern), behavior="isolated") for pattern in patterns]
        return Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])

    return build


PRETOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "default": _split(*DEFAULT),
    "gpt-2": _gpt2,
    "phi-2": _gpt2,
    "mpt": _gpt2,
    "olmo": _gpt2,
    "smollm": _digits_then_gpt2,
    "starcoder": _digits_then_gpt2,
    "refact": _digits_then_gpt2,
    "codeshell": _digits_then_gpt2,
    "llama-bpe": _split(LLAMA3),
    "llama3": _split(LLAMA3),
    "llama-v3": _split(LLAMA3),
    "qwen2": _split(QWEN2),
    "deepseek-r1-qwen": _split(QWEN2),
}
COMPOSES_ACCENTS = frozenset({"qwen2", "deepseek-r1-qwen"})  # their tokenizer.json normalizes to NFC
TAKES_WHOLE_WORDS = frozenset({"llama-bpe", "llama3", "llama-v3"})  # a word that is a token is not merged up to it
BEGINS_WITH_BOS = TAKES_WHOLE_WORDS  # unless the file says otherwise


def pretokenizer(name: str) -> PreTokenizer:
    """Refuses names it does not know: a wrong cut gives plausible ids and a silently worse model."""
    if name not in PRETOKENIZERS:
        close = nearest(name, list(PRETOKENIZERS))
        raise Refused(
            f"The tokenizer cuts words the way of '{name[:60]}', which scrimp does not know.",
            hint=f"{close} Known are {', '.join(PRETOKENIZERS)}".strip(),
        )
    return PRETOKENIZERS[name]()
