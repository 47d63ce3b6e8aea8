"""A Hugging Face directory as a Source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama as tiny

from scrimp.errors import Refused, UsageError
from scrimp.sources import open_source
from scrimp.tensors import QTensor

pytest.importorskip("safetensors")


def as_kind(values: dict[str, tiny.F32], kind: str) -> dict[str, Any]:
    if kind == "bf16":
        ml_dtypes = pytest.importorskip("ml_dtypes")
        return {name: array.astype(ml_dtypes.bfloat16) for name, array in values.items()}
    return {name: array.astype({"f32": np.float32, "f16": np.float16}[kind]) for name, array in values.items()}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_comes_back_as_it_was_saved(tmp_path: Path, kind: str, shards: int, tied: bool) -> None:
    values = tiny.weights(tied=tied)
    tiny.write_huggingface(tmp_path, as_kind(values, kind), shards=shards, tie_word_embeddings=tied)
    with open_source(tmp_path) as source:
        assert source.kind == "huggingface"
        assert set(source.tensors) == set(values)
        for name, array in values.items():
            tensor = source.read(name)
            if array.ndim == 1:
                assert isinstance(tensor, np.ndarray)
                assert tensor.dtype == np.float32
                assert np.array_equal(tensor, array)
            else:
                assert isinstance(tensor, QTensor)
                assert tensor.format.name == kind
                assert np.array_equal(tensor.dequantize(), array)
        assert source.file_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_was_read_outlives_the_source(tmp_path: Path) -> None:
    values = tiny.weights()
    tiny.write_huggingface(tmp_path, values)
    source = open_source(tmp_path)
    norm = source.read(tiny.NORM)
    source.close()
    assert isinstance(norm, np.ndarray)
    assert norm.flags.owndata, "a view would keep the whole file mapped"
    assert np.array_equal(norm, values[tiny.NORM])


def test_files_without_an_index_are_found(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(), shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    with open_source(tmp_path) as source:
        assert set(source.tensors) == set(tiny.weights())


def test_a_second_copy_of_a_tied_head_is_left_out_and_noted(tmp_path: Path) -> None:
    values = tiny.weights(tied=True)
    tiny.write_huggingface(tmp_path, {**values, tiny.HEAD: values[tiny.EMBEDDING].copy()}, tie_word_embeddings=True)
    with open_source(tmp_path) as source:
        assert set(source.tensors) == set(values)
        assert source.notes == ["lm_head.weight is the same as model.embed_tokens.weight: one copy is used"]


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(tied=False), tie_word_embeddings=True)
    with pytest.raises(Refused, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        open_source(tmp_path)


def test_rotary_buffers_of_old_checkpoints_are_left_out_and_noted(tmp_path: Path) -> None:
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(2)}
    tiny.write_huggingface(tmp_path, {**tiny.weights(), **buffers})
    with open_source(tmp_path) as source:
        assert set(source.tensors) == set(tiny.weights())
        assert source.notes == ["rotary frequencies come from the config, not from the file: 2 tensors"]


def test_the_tokenizer_is_the_directory_that_holds_one(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights())
    with open_source(tmp_path) as source:
        assert source.tokenizer.kind == "none"
    (tmp_path / "tokenizer.json").write_text("{}")
    with open_source(tmp_path) as source:
        assert (source.tokenizer.kind, source.tokenizer.path) == ("huggingface", tmp_path)
    with pytest.raises(UsageError, match="brings its own tokenizer"):
        open_source(tmp_path, tokenizer=tmp_path / "tok.bin")


def read_all(directory: Path) -> None:
    with open_source(directory) as source:
        for name in source.tensors:
            source.read(name)


def without(name: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(tiny.weights())
    del values[name]
    return values


NORM_0 = "model.layers.0.input_layernorm.weight"
BAD_WEIGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "a matrix is missing": (without("model.layers.0.mlp.up_proj.weight"), "lacks model.layers.0.mlp.up_proj.weight"),
    "the head is missing": (without(tiny.HEAD), "lacks lm_head.weight"),
    "many are missing": ({tiny.NORM: np.zeros(64, np.float32)}, "lacks 20 tensors such as"),
    "a tensor too many": ({**tiny.weights(), "score.weight": np.zeros((2, 64), np.float32)}, "holds score.weight"),
    "another shape": (
        {**tiny.weights(), tiny.HEAD: np.zeros((40, 63), np.float32)},
        "40 × 63; its config asks for 40 × 64",
    ),
    "a norm as a matrix": (
        {**tiny.weights(), tiny.NORM: np.zeros((1, 64), np.float32)},
        "1 × 64; its config asks for 64",
    ),
    "integers": ({**tiny.weights(), tiny.HEAD: np.zeros((40, 64), np.int8)}, "lm_head.weight is stored as I8"),
    "doubles": ({**tiny.weights(), NORM_0: np.zeros(64)}, f"{NORM_0} is stored as F64"),
    "NaN": ({**tiny.weights(), tiny.HEAD: np.full((40, 64), np.nan, np.float32)}, "2,560 weights of lm_head.weight"),
    "one infinity": ({**tiny.weights(), tiny.NORM: np.r_[np.inf, np.zeros(63)].astype("f2")}, "1 values of model.norm"),
}


@pytest.mark.parametrize("what", BAD_WEIGHTS)
def test_refuses_weights_that_are_not_the_networks(what: str, tmp_path: Path) -> None:
    values, message = BAD_WEIGHTS[what]
    tiny.write_huggingface(tmp_path, values)
    with pytest.raises(Refused) as refused:
        read_all(tmp_path)
    assert message in refused.value.message


BAD_CONFIGS: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "is not valid JSON"),
    "a list": ("[]", "holds a JSON list, not an object"),
    "a key twice": ('{"hidden_size": 64, "hidden_size": 64}', "the key 'hidden_size' appears twice"),
    "nested deeply": ('{"a":' + "[" * 10**6, "is nested too deeply"),
    "11 MB": (" " * 11_000_000, "has 11,000,000 bytes; the limit is 10,000,000"),
    "an unknown architecture": ({"model_type": "gpt9"}, "'gpt9' is not supported"),
    "no architecture": ({"model_type": None}, "'None' is not supported"),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantized with 'gptq'"),
    "a nameless quantization": ({"quantization_config": {"bits": 4}}, "is quantized with 'None'"),
    "a quantization in a word": ({"quantization_config": "awq"}, "is quantized with 'awq'"),
    "10^9 layers": ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1,000,000,000"),
    "a negative width": ({"hidden_size": -64}, "'hidden_size' is -64"),
    "a width in words": ({"hidden_size": "64"}, "'hidden_size' is '64', not an integer"),
}


@pytest.mark.parametrize("what", BAD_CONFIGS)
def test_refuses_a_config(what: str, tmp_path: Path) -> None:
    config, message = BAD_CONFIGS[what]
    tiny.write_huggingface(tmp_path, tiny.weights())
    text = config if isinstance(config, str) else json.dumps({**tiny.CONFIG, **config})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Refused) as refused:
        open_source(tmp_path)
    assert message in refused.value.message


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/x.safetensors", "a/b.safetensors", "model.bin", "", 7, None]
)
def test_an_index_may_name_only_plain_files_of_the_directory(name: Any, tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {tiny.NORM: name}}))
    with pytest.raises(Refused, match=r"no plain \.safetensors name"):
        open_source(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_an_index_without_a_map_is_refused(index: Any, tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(), shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(Refused, match="has no weight_map"):
        open_source(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(), shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(Refused, match=r"lacks model-00002-of-00002\.safetensors"):
        open_source(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights(), shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    (tmp_path / "more.safetensors").write_bytes((tmp_path / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(Refused, match=r"lies in both model-00001-of-00002\.safetensors and more\.safetensors"):
        open_source(tmp_path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    tiny.write_huggingface(tmp_path, tiny.weights())
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(Refused, match=r"has no \.safetensors files") as refused:
        open_source(tmp_path)
    assert "pickles can run code" in (refused.value.hint or "")
