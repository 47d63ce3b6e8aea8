"""GGUF files of qwen3 and gemma3, as llama.cpp writes them, against the same network as a Hugging Face directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf_bytes as g
import numpy as np
import pytest
from safetensors.numpy import save_file

import scrimp
from scrimp import models
from scrimp.errors import Refused
from scrimp.sources import open_source

SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 64, "head_dim": 24,
    "rms_norm_eps": float(np.float32(1e-6)), "tie_word_embeddings": True,
}  # fmt: skip
QWEN3 = {**SMALL, "model_type": "qwen3", "rope_theta": 1e6}
GEMMA3 = {
    **SMALL, "model_type": "gemma3_text", "sliding_window": 6, "query_pre_attn_scalar": 24, "rope_theta": 1e6,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 10000.0,
}  # fmt: skip
SHORT = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
NAMES = {
    "qwen3": SHORT | {"ffn_norm": "post_attention_layernorm"},
    "gemma3": SHORT | {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
                       "post_ffw_norm": "post_feedforward_layernorm"},
}  # fmt: skip


def weights(config: dict[str, Any]) -> dict[str, Any]:
    """Vectors are eighths, so that adding 1 and taking it away again is exact."""
    _, program = models.build(config)
    rng = np.random.default_rng(2)
    made = {name: rng.normal(0, shape[1] ** -0.5, shape) for name, shape in program.matrices.items()}
    made |= {name: rng.integers(-8, 12, size) / 8 for name, size in program.vectors.items()}
    return {name: values.astype(np.float32) for name, values in made.items()}


def write(path: Path, arch: str, config: dict[str, Any], extra: tuple[bytes, ...] = (), **left_out: object) -> Path:
    """Norms of gemma3 are stored with their 1, as llama.cpp's converter does."""
    names = {f"model.layers.{i}.{theirs}.weight": f"blk.{i}.{ours}.weight" for ours, theirs in NAMES[arch].items()
             for i in range(SMALL["num_hidden_layers"])}  # fmt: skip
    names |= {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    data, tensors = b"", []
    for name, values in weights(config).items():
        stored = values + np.float32(1) if arch == "gemma3" and values.ndim == 1 else values
        tensors.append(g.tensor(names[name], values.shape[::-1], 0, len(data)))
        data += stored.tobytes().ljust(-(-stored.nbytes // 32) * 32, b"\0")
    numbers = {"embedding_length": 64, "feed_forward_length": 96, "block_count": 7, "attention.head_count": 4,
               "attention.head_count_kv": 2, "context_length": 64, "attention.key_length": 24,
               "attention.value_length": 24}  # fmt: skip
    if arch == "gemma3":
        numbers["attention.sliding_window"] = 6
    entries = [g.key("general.architecture", g.STRING, arch)]
    entries += [g.key(f"{arch}.{key}", g.U32, value) for key, value in numbers.items() if key not in left_out]
    entries += [g.key(f"{arch}.attention.layer_norm_rms_epsilon", g.F32, 1e-6)]
    entries += [g.key(f"{arch}.rope.freq_base", g.F32, 1e6)]
    if arch == "gemma3":
        entries += [
            g.key("gemma3.rope.scaling.type", g.STRING, "linear"),
            g.key("gemma3.rope.scaling.factor", g.F32, 8.0),
        ]
    path.write_bytes(g.gguf([*entries, *extra], tensors, data))
    return path


@pytest.mark.parametrize(("arch", "config"), [("qwen3", QWEN3), ("gemma3", GEMMA3)])
def test_a_gguf_is_the_network_that_was_converted(tmp_path: Path, arch: str, config: dict[str, Any]) -> None:
    values = weights(config)
    save_file(values, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = write(tmp_path / "m.gguf", arch, config)
    with open_source(path) as source:
        for name, array in values.items():
            tensor = source.read(name)
            assert np.array_equal(tensor if isinstance(tensor, np.ndarray) else tensor.dequantize(), array), name
    tokens = list(range(40))
    with (
        scrimp.open(path, threads=1, arithmetic="f32") as one,
        scrimp.open(tmp_path, threads=1, arithmetic="f32") as two,
    ):
        assert one.parsed == two.parsed
        assert np.array_equal(one.logits(tokens), two.logits(tokens))


def test_a_gemma_without_its_window_gets_the_default_of_its_config(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "gemma3", GEMMA3, **{"attention.sliding_window": None})
    with scrimp.open(path, threads=1) as model:
        assert model.parsed.window == 4096


def test_caps_in_a_gguf_are_not_lost(tmp_path: Path) -> None:
    extra = (g.key("gemma3.final_logit_softcapping", g.F32, 30.0), g.key("gemma3.attn_logit_softcapping", g.F32, 50.0))
    with scrimp.open(write(tmp_path / "m.gguf", "gemma3", GEMMA3, extra), threads=1) as model:
        assert (model.parsed.logit_cap, model.parsed.attention_cap) == (30.0, 50.0)


@pytest.mark.parametrize("missing", ["embedding_length", "attention.head_count", "block_count"])
@pytest.mark.parametrize(("arch", "config"), [("qwen3", QWEN3), ("gemma3", GEMMA3)])
def test_metadata_that_lacks_a_number_is_refused(
    tmp_path: Path, arch: str, config: dict[str, Any], missing: str
) -> None:
    path = write(tmp_path / "m.gguf", arch, config, **{missing: None})
    with pytest.raises(Refused, match="is None, not an integer"):
        open_source(path)
