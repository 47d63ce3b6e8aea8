"""Tiny tokenizers, trained here on a few lines, and the place where SmolLM2 may lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from scrimp.sources.catalogue import cache_directory
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.text.tokenizer import Tokenizer, load

settings.register_profile("busy-machine", deadline=None)  # others may be using it
settings.load_profile("busy-machine")

CORPUS = """Once upon a time there was a little girl who lived in a village near the forest. Whenever she went out,
the little girl wore a red riding cloak, so everyone in the village called her Little Red Riding Hood.
def area(width, height):
    return width * height  # 1234 square metres, 56.78 at least
Größe naïve café, élève. 漢字かな交じり文 😀 👩\u200d👩\u200d👧 ¿qué? — “quoted” … it's, we'll, THEY'RE
"""
PAGE = """It's a page, isn't it? WE'LL see:  two spaces,   three,\ttabs\t\tand

blank lines.\r\nWindows\r\n\r\n   indented
def f(x: int) -> str:\n    return f"{x!r:>10}" + 'a' * 3  # 1,234,567.89 and 20240131 ¾ ² ٣٤
naïve café Ångström cafe\u0301 ﬁ Straße; ελληνικά русский עברית العربية हिन्दी ไทย
漢字とかな、한국어！ 😀👍🏽👩\u200d👩\u200d👧🇩🇪 ∑∫≈ ---- ==== ///*** <<< >>> https://a.b/c?d=e&f=%20
\u00a0nbsp\u2003em\u200bzero   """


@pytest.fixture(scope="session")
def corpus() -> str:
    return CORPUS


@pytest.fixture(scope="session")
def page() -> str:
    return PAGE


@pytest.fixture(scope="session")
def byte_level_metadata() -> dict[str, Any]:
    """As the ``tokenizer.*`` keys of a GGUF file with a ChatML tokenizer of some 500 tokens."""
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.trainers import BpeTrainer

    backend = Backend(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([CORPUS] * 3, trainer)
    import json

    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.fixture(scope="session")
def spm_metadata() -> dict[str, Any]:
    """As the ``tokenizer.*`` keys of a GGUF file with a SentencePiece tokenizer, made by hand: score = −rank."""
    words = [*"▁tehonaisrdlugwcmypfbvk.,'é漢", "▁t", "he", "▁a", "in", "▁the", "er", "▁o", "nc", "▁onc", "▁once", "▁▁"]
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *words]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(words))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


@pytest.fixture(scope="session")
def byte_level(byte_level_metadata: dict[str, Any]) -> Tokenizer:
    return load(TokenizerData.gguf(byte_level_metadata))


@pytest.fixture(scope="session")
def spm(spm_metadata: dict[str, Any]) -> Tokenizer:
    return load(TokenizerData.gguf(spm_metadata))


def _smollm2() -> Path | None:
    if named := os.environ.get("SCRIMP_TEST_SMOLLM2"):
        return Path(named)
    return next(iter(sorted((cache_directory() / "smollm2-135m").glob("*.gguf"))), None)


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    path = _smollm2()
    if path is None or not path.is_file():
        pytest.skip("SmolLM2 is not here: scrimp pull smollm2-135m, or name the file in SCRIMP_TEST_SMOLLM2")
    return path


@pytest.fixture(scope="session")
def smollm2_metadata(smollm2_path: Path) -> dict[str, Any]:
    gguf = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(smollm2_path)
    return {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}


@pytest.fixture(scope="session")
def smollm2(smollm2_metadata: dict[str, Any]) -> Tokenizer:
    return load(TokenizerData.gguf(smollm2_metadata))
