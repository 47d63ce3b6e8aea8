"""A llama of 2 layers with random weights, and writers that put it into every kind of file. Test data only."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}
HEADS = {"q_proj": 4, "k_proj": 2}
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"

#: inner Hugging Face name → (GGUF name, shape)
LAYER: dict[str, tuple[str, tuple[int, ...]]] = {
    "input_layernorm": ("attn_norm", (64,)),
    "self_attn.q_proj": ("attn_q", (64, 64)),
    "self_attn.k_proj": ("attn_k", (32, 64)),
    "self_attn.v_proj": ("attn_v", (32, 64)),
    "self_attn.o_proj": ("attn_output", (64, 64)),
    "post_attention_layernorm": ("ffn_norm", (64,)),
    "mlp.gate_proj": ("ffn_gate", (96, 64)),
    "mlp.up_proj": ("ffn_up", (96, 64)),
    "mlp.down_proj": ("ffn_down", (64, 96)),
}


def weights(*, tied: bool = False, seed: int = 0) -> dict[str, F32]:
    """Hugging Face name → float32 values that float16 and bfloat16 hold exactly (small multiples of 1/64)."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (40, 64), NORM: (64,)}
    for i in range(2):
        shapes |= {f"model.layers.{i}.{inner}.weight": shape for inner, (_, shape) in LAYER.items()}
    if not tied:
        shapes[HEAD] = (40, 64)
    return {name: (rng.integers(-127, 128, shape) / 64).astype(np.float32) for name, shape in shapes.items()}


def pairs_from_halves(rows: NDArray[Any], heads: int) -> NDArray[Any]:
    """The other way round than the sources go: rows as GGUF and llama2.c store them."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def in_pairs(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    for part, heads in HEADS.items():
        if part in name:
            return pairs_from_halves(rows, heads)
    return rows


def gguf_name(name: str) -> str:
    if name in (EMBEDDING, NORM, HEAD):
        return {EMBEDDING: "token_embd.weight", NORM: "output_norm.weight", HEAD: "output.weight"}[name]
    _, _, layer, inner = name.removesuffix(".weight").split(".", 3)
    return f"blk.{layer}.{LAYER[inner][0]}.weight"


def write_gguf(path: Path, values: dict[str, F32], kind: str = "F32", *, vocabulary: int = 40) -> None:
    """With the gguf package: matrices in ``kind``, vectors in F32."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{i}" for i in range(vocabulary)])
    number = GGMLQuantizationType[kind]
    for name, array in values.items():
        stored = in_pairs(name, array)
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(gguf_name(name), stored)
        else:
            writer.add_tensor(gguf_name(name), quants.quantize(stored, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_huggingface(directory: Path, values: dict[str, Any], *, shards: int = 1, **config: Any) -> None:
    """With the safetensors package; ``config`` overrides entries of the config.json."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
    if shards == 1:
        save_file(values, directory / "model.safetensors")
        return
    names = list(values)
    files = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    for i, file in enumerate(files):
        save_file({name: values[name] for name in names[i::shards]}, directory / file)
    where = {name: files[i % shards] for i, name in enumerate(names)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def llama2c_bytes(values: dict[str, F32], version: int, *, group: int = 32) -> bytes:
    """As llama2.c's export.py lays them out, version 0 (legacy), 1 or 2."""
    tied = HEAD not in values
    counts = [64, 96, 2, 4, 2, 40, 128]

    def layers(inner: str) -> list[str]:
        return [f"model.layers.{i}.{inner}.weight" for i in range(2)]

    norms = [*layers("input_layernorm"), *layers("post_attention_layernorm"), NORM]
    attention = [name for inner in ("q_proj", "k_proj", "v_proj", "o_proj") for name in layers(f"self_attn.{inner}")]
    ffn = [name for inner in ("gate_proj", "down_proj", "up_proj") for name in layers(f"mlp.{inner}")]
    head = [] if tied else [HEAD]

    def floats(names: list[str]) -> bytes:
        return b"".join(in_pairs(name, values[name]).astype("<f4").tobytes() for name in names)

    if version == 0:
        counts[5] = 40 if tied else -40
        tables = np.zeros(2 * 128 * 8, "<f4").tobytes()  # cos and sin of 128 positions, 16 / 2 angles
        before, after = (
            [EMBEDDING, *layers("input_layernorm"), *attention, *layers("post_attention_layernorm")],
            [*ffn, NORM],
        )
        return struct.pack("<7i", *counts) + floats(before + after) + tables + floats(head)
    header = struct.pack("<Ii7iB", 0x616B3432, version, *counts, tied)
    if version == 1:
        return header.ljust(256, b"\0") + floats([*norms, EMBEDDING, *attention, *ffn, *head])
    header += struct.pack("<i", group)
    body = b"".join(
        codes.tobytes() + scales.tobytes()
        for codes, scales in (q80(in_pairs(name, values[name]), group) for name in [EMBEDDING, *attention, *ffn, *head])
    )
    return header.ljust(256, b"\0") + floats(norms) + body


def q80(matrix: F32, group: int) -> tuple[NDArray[np.int8], F32]:
    """Groups of the flattened matrix: int8 codes and one float32 scale each."""
    groups = matrix.reshape(-1, group)
    scales = (np.abs(groups).max(axis=1) / 127).astype(np.float32)
    codes = np.round(groups / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    return codes, scales
