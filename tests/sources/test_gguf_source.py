"""A GGUF file as a Source: names, rotary order, config, tokenizer; and the files that are no network."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf_bytes as g
import numpy as np
import pytest
import tiny_llama as tiny

from scrimp.errors import Refused
from scrimp.sources import open_source
from scrimp.sources.gguf_blocks import TYPES, BlockType
from scrimp.tensors import QTensor

pytest.importorskip("gguf")


def decoded(tensor: QTensor | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return tensor.dequantize() if isinstance(tensor, QTensor) else tensor


@pytest.mark.parametrize("tied", [True, False])
def test_float_weights_come_back_with_their_names_and_rotary_order(tmp_path: Path, tied: bool) -> None:
    values = tiny.weights(tied=tied)
    tiny.write_gguf(tmp_path / "m.gguf", values)
    with open_source(tmp_path / "m.gguf") as source:
        assert set(source.tensors) == set(values)
        assert source.config["tie_word_embeddings"] is tied
        for name, array in values.items():
            info = source.tensors[name]
            assert (info.shape, info.stored, info.nbytes) == (array.shape, "F32", array.nbytes)
            assert np.array_equal(decoded(source.read(name)), array)


@pytest.mark.parametrize(
    ("kind", "format"),
    [("F16", "f16"), ("BF16", "bf16"), ("Q4_0", "int4:g32"), ("Q4_1", "int4z:g32"), ("Q5_0", "int5:g32"),
     ("MXFP4", "mxfp4"), ("Q5_1", "int5z:g32"), ("Q8_0", "int8:g32")],
)  # fmt: skip
def test_a_quantized_file_keeps_what_was_stored(tmp_path: Path, kind: str, format: str) -> None:
    from gguf import GGMLQuantizationType, quants

    values = tiny.weights()
    tiny.write_gguf(tmp_path / "m.gguf", values, kind)
    number = GGMLQuantizationType[kind]
    with open_source(tmp_path / "m.gguf") as source:
        for name, array in values.items():
            tensor = source.read(name)
            if array.ndim == 1:
                assert np.array_equal(decoded(tensor), array)
                continue
            assert isinstance(tensor, QTensor)
            assert tensor.format.name == format
            # quantization works inside rows, so the order of the rows does not change what is stored
            assert np.array_equal(tensor.dequantize(), quants.dequantize(quants.quantize(array, number), number))
        assert source.notes == []
        assert source.file_bytes == (tmp_path / "m.gguf").stat().st_size


def test_types_without_an_equal_format_are_noted_once_per_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tiny.weights()
    monkeypatch.setitem(TYPES, 39, BlockType(39, "MXFP4", 32, 17))  # every other has blocks too long for this model
    tiny.write_gguf(tmp_path / "m.gguf", values, "MXFP4")
    with open_source(tmp_path / "m.gguf") as source:
        assert source.notes == ["MXFP4 → f16 where that is exact, else f32 (no equal Format): 16 tensors"]
        tensor = source.read(tiny.EMBEDDING)
        assert isinstance(tensor, QTensor)
        assert tensor.format.name in ("f16", "f32")


def test_config_and_tokenizer_come_from_the_metadata(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", tiny.weights())
    with open_source(tmp_path / "m.gguf") as source:
        assert source.config == {**tiny.CONFIG, "rms_norm_eps": pytest.approx(1e-5, rel=1e-6)}
        assert source.tokenizer.kind == "gguf"
        assert source.tokenizer.metadata is not None
        assert source.tokenizer.metadata["tokenizer.ggml.tokens"] == [f"token{i}" for i in range(40)]
        assert all(key.startswith("tokenizer.") for key in source.tokenizer.metadata)


def test_several_threads_may_read_at_once(tmp_path: Path) -> None:
    values = tiny.weights()
    tiny.write_gguf(tmp_path / "m.gguf", values)
    with open_source(tmp_path / "m.gguf") as source, ThreadPoolExecutor(4) as pool:
        for name, tensor in zip(list(values) * 5, pool.map(source.read, list(values) * 5), strict=True):
            assert np.array_equal(decoded(tensor), values[name])


def test_what_was_read_outlives_the_source(tmp_path: Path) -> None:
    values = tiny.weights()
    tiny.write_gguf(tmp_path / "m.gguf", values)
    source = open_source(tmp_path / "m.gguf")
    read = {name: source.read(name) for name in values}
    source.close()
    source.close()
    assert all(np.array_equal(decoded(tensor), values[name]) for name, tensor in read.items())


def test_the_frequency_factors_of_llama_3_1_reach_the_config(tmp_path: Path) -> None:
    values = {**tiny.weights(), "rope_freqs": np.linspace(1, 8, 8, dtype=np.float32)}
    file = raw_llama(values)
    (tmp_path / "m.gguf").write_bytes(file)
    with open_source(tmp_path / "m.gguf") as source:
        assert source.config["rope_scaling"] == {"rope_type": "factors", "factors": np.linspace(1, 8, 8).tolist()}
        assert not any("rope" in name for name in source.tensors)


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    def edit(values: dict[str, Any]) -> None:
        del values[name]

    return edit


def put(name: str, array: Any) -> Callable[[dict[str, Any]], None]:
    return lambda values: values.update({name: np.asarray(array, np.float32)})


NOT_A_NETWORK: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no embedding": (drop(tiny.EMBEDDING), "has no token_embd.weight"),
    "a matrix is missing": (drop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj.weight"),
    "a norm is missing": (drop(tiny.NORM), "lacks model.norm.weight"),
    "another shape": (
        put("model.layers.1.mlp.up_proj.weight", np.zeros((95, 64))),
        "shape 95 × 64; its config asks for 96 × 64",
    ),
    "a vector for a matrix": (
        put("model.layers.1.mlp.up_proj.weight", np.zeros(96)),
        "has shape 96; its config asks for 96 × 64",
    ),
    "a tensor nobody knows": (put("mystery", np.zeros(4)), "holds mystery.weight, which scrimp's llama does not use"),
    "a bias nobody adds": (put("blk.0.attn_q.bias", np.zeros(64)), "holds model.layers.0.self_attn.q_proj.bias"),
    "a layer too many": (put("blk.2.attn_norm.weight", np.zeros(64)), "holds model.layers.2.input_layernorm.weight"),
    "a layer written twice": (
        put("blk.01.attn_norm.weight", np.zeros(64)),
        "holds model.layers.01.input_layernorm.weight",
    ),
    "a weight that is NaN": (
        put(tiny.HEAD, np.full((40, 64), np.nan)),
        "2,560 weights of lm_head.weight are infinite or NaN",
    ),
    "a norm that is infinite": (
        put(tiny.NORM, np.full(64, np.inf)),
        "64 values of model.norm.weight are infinite or NaN",
    ),
    "factors of another length": (put("rope_freqs", np.ones(7)), "rope factors must be 8 positive numbers"),
}


@pytest.mark.parametrize("what", NOT_A_NETWORK)
def test_refuses_what_is_no_network(what: str, tmp_path: Path) -> None:
    edit, message = NOT_A_NETWORK[what]
    values: dict[str, Any] = dict(tiny.weights())
    edit(values)
    (tmp_path / "m.gguf").write_bytes(raw_llama(values))
    with pytest.raises(Refused) as refused:
        read_all(tmp_path / "m.gguf")
    assert message in refused.value.message


def test_two_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    path, canonical = tmp_path / "m.gguf", "model.norm.weight"
    path.write_bytes(raw_llama(tiny.weights(), rename={"output_norm.weight": canonical}))
    read_all(path)  # a file may use the Hugging Face name, once
    path.write_bytes(raw_llama({**tiny.weights(), "X": np.zeros(64, np.float32)}, rename={"X.weight": canonical}))
    with pytest.raises(Refused, match=r"output_norm\.weight and model\.norm\.weight are the same tensor"):
        read_all(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), float("-inf")])
def test_a_scale_that_is_no_number_is_refused_with_the_tensors_name(tmp_path: Path, scale: float) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", tiny.weights(), "Q8_0")
    with open_source(tmp_path / "m.gguf") as source:
        nbytes = source.tensors[tiny.HEAD].nbytes
        raw = bytearray((tmp_path / "m.gguf").read_bytes())
        stored: Any = source
        at = stored._stored[tiny.HEAD].offset
    raw[at + 34 : at + 36] = struct.pack("<e", scale)
    assert at + nbytes <= len(raw)
    (tmp_path / "bad.gguf").write_bytes(raw)
    with open_source(tmp_path / "bad.gguf") as source:
        source.read(tiny.EMBEDDING)
        with pytest.raises(Refused, match=r"1 scales of lm_head\.weight are infinite or NaN"):
            source.read(tiny.HEAD)


def test_a_tokenizer_of_another_size_is_refused(tmp_path: Path) -> None:
    tiny.write_gguf(tmp_path / "m.gguf", tiny.weights(), vocabulary=41)
    with pytest.raises(Refused, match="the tokenizer has 41 tokens, the embedding 40 rows"):
        open_source(tmp_path / "m.gguf")


def test_integers_are_no_weights(tmp_path: Path) -> None:
    file = raw_llama(tiny.weights(), kinds={"token_embd.weight": 26})
    (tmp_path / "m.gguf").write_bytes(file)
    with pytest.raises(Refused, match=r"token_embd\.weight is stored as I32, which scrimp cannot read"):
        open_source(tmp_path / "m.gguf")


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(raw_llama(tiny.weights(), {"general.architecture": (g.STRING, "mamba")}))
    with pytest.raises(Refused) as refused:
        open_source(tmp_path / "m.gguf")
    assert "'mamba' is not supported" in refused.value.message
    assert "llama" in (refused.value.hint or "")


def test_a_part_of_a_split_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(raw_llama(tiny.weights(), {"split.count": (g.U16, 3)}))
    with pytest.raises(Refused, match="one of 3 parts of a split GGUF"):
        open_source(tmp_path / "m.gguf")


METADATA: dict[str, tuple[int, Any]] = {
    "general.architecture": (g.STRING, "llama"),
    "llama.block_count": (g.U32, 2),
    "llama.context_length": (g.U32, 128),
    "llama.embedding_length": (g.U32, 64),
    "llama.feed_forward_length": (g.U32, 96),
    "llama.attention.head_count": (g.U32, 4),
    "llama.attention.head_count_kv": (g.U32, 2),
    "llama.attention.layer_norm_rms_epsilon": (g.F32, 1e-5),
    "llama.rope.freq_base": (g.F32, 10000.0),
    "llama.rope.scaling.type": (g.STRING, "none"),
    "tokenizer.ggml.model": (g.STRING, "gpt2"),
    "tokenizer.ggml.tokens": (g.ARRAY, (g.STRING, [f"token{i}" for i in range(40)])),
}
#: one value of every type, and arrays of some
OTHERS: list[tuple[int, Any]] = [
    *((kind, 2) for kind in (g.U8, g.I8, g.U16, g.I16, g.U32, g.I32, g.U64, g.I64)),
    *((kind, -1) for kind in (g.I8, g.I64)),
    *((kind, 2**31) for kind in (g.U32, g.U64)),
    (g.U64, 2**64 - 1),
    *((kind, number) for kind in (g.F32, g.F64) for number in (2.0, float("nan"), float("inf"), -1.0)),
    (g.BOOL, True),
    (g.STRING, ""),
    (g.STRING, "2"),
    *((g.ARRAY, (kind, [])) for kind in (g.U8, g.F32, g.STRING)),
    *((g.ARRAY, (kind, [2])) for kind in (g.U32, g.F64, g.BOOL)),
    (g.ARRAY, (g.STRING, ["2"])),
]
INTEGERS = ("block_count", "embedding_length", "feed_forward_length", "head_count", "head_count_kv", "context_length")


@pytest.mark.parametrize("key", METADATA)
def test_every_key_with_every_wrong_type_is_read_or_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    values = tiny.weights()
    for kind, content in OTHERS:
        path.write_bytes(raw_llama(values, {key: (kind, content)}))
        try:
            read_all(path)
            survived = True
        except Refused:
            survived = False
        is_integer = kind in (g.U8, g.I8, g.U16, g.I16, g.U32, g.I32, g.U64, g.I64)
        if key.endswith(INTEGERS) and not is_integer:
            assert not survived, f"{key} as {content!r} of type {kind} must be refused"
        if key in ("general.architecture", "tokenizer.ggml.tokens"):
            assert not survived


@pytest.mark.parametrize("key", [key for key in METADATA if key.endswith((*INTEGERS, "architecture"))])
def test_every_missing_key_is_defaulted_or_refused(key: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(raw_llama(tiny.weights(), {key: None}))
    if key.endswith("context_length"):
        read_all(tmp_path / "m.gguf")
        return
    with pytest.raises(Refused):
        read_all(tmp_path / "m.gguf")


def read_all(path: Path) -> None:
    with open_source(path) as source:
        for name in source.tensors:
            source.read(name)


def raw_llama(
    values: dict[str, Any],
    metadata: dict[str, tuple[int, Any] | None] | None = None,
    *,
    kinds: dict[str, int] | None = None,
    rename: dict[str, str] | None = None,
) -> bytes:
    """The tiny network in float32, byte by byte; ``metadata`` replaces keys (None leaves one out)."""
    entries = {**METADATA, **(metadata or {})}
    keys = [g.key(name, *entry) for name, entry in entries.items() if entry is not None]
    tensors, data = [], b""
    for name, array in values.items():
        known = name in tiny.weights()
        inside = tiny.gguf_name(name) if known else name if "." in name else f"{name}.weight"
        stored = tiny.in_pairs(name, array) if array.ndim == 2 and known and array.shape[0] % 8 == 0 else array
        inside = (rename or {}).get(inside, inside)
        tensors.append(g.tensor(inside, array.shape[::-1], (kinds or {}).get(inside, 0), len(data)))
        raw = stored.astype("<f4").tobytes()
        data += raw.ljust(-(-len(raw) // 32) * 32, b"\0")
    return g.gguf(keys, tensors, data)


@pytest.mark.model
def test_all_of_smollm2_has_the_bits_that_the_gguf_package_reads() -> None:
    from gguf import GGUFReader, quants

    from scrimp.sources.catalogue import Wheel, cache_directory, catalogue

    entry = catalogue()["smollm2-135m"]
    assert isinstance(entry, Wheel)
    path = Path(os.environ.get("SCRIMP_TEST_SMOLLM2") or cache_directory() / entry.name / entry.file_name)
    if not path.is_file():
        pytest.skip("SmolLM2 is not here: scrimp pull smollm2-135m")
    theirs = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    with open_source(path) as source:
        assert len(source.tensors) == len(theirs) == 272
        for name in source.tensors:
            stored = theirs[tiny.gguf_name(name)]
            wanted = quants.dequantize(stored.data, stored.tensor_type)
            rows = decoded(source.read(name))
            for part, heads in {"q_proj": 9, "k_proj": 3}.items():
                if part in name:
                    rows = tiny.pairs_from_halves(rows, heads)
            assert np.array_equal(rows.view(np.uint32), wanted.view(np.uint32)), name
