"""Ternary checkpoints: packed by transformers in both conventions, and bitnet.cpp's I2_S."""

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

CONFIG: dict[str, Any] = {
    "model_type": "bitnet", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "relu2", "tie_word_embeddings": True,
}  # fmt: skip
UP = "model.layers.0.mlp.up_proj.weight"


def network(seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
    """Vectors and the embedding; codes (N, K) in -1, 0, 1 of the ternary matrices; and their scales."""
    _, program = models.build(CONFIG)
    rng = np.random.default_rng(seed)
    floats = {name: rng.normal(1, 0.3, size).astype(np.float32) for name, size in program.vectors.items()}
    codes, scales = {}, {}
    for name, shape in program.matrices.items():
        if "embed" in name:
            floats[name] = rng.normal(0, 1, shape).astype(np.float32)
        else:
            codes[name] = rng.integers(-1, 2, shape).astype(np.int8)
            scales[name] = float(np.float16(1.2 / shape[1] ** 0.5))  # a number that bfloat16 need not hold
    return floats, codes, scales


def write(directory: Path, *, linear_class: str = "autobitlinear", mode: str = "offline", **changed: Any) -> Path:
    """As transformers would: codes packed by its own function; ``changed`` tensors replace those of the file."""
    torch = pytest.importorskip("torch", reason="transformers packs with it")
    packing = pytest.importorskip("transformers.integrations.bitnet", reason="transformers is the oracle")
    floats, codes, scales = network()
    stored: dict[str, Any] = dict(floats)
    for name, values in codes.items():
        if mode == "online":
            stored[name] = values * np.float32(scales[name])
            continue
        stored[name] = packing.pack_weights(torch.from_numpy(values.copy())).numpy()
        scale = scales[name] if linear_class == "autobitlinear" else 1 / scales[name]
        stored[name.replace(".weight", ".weight_scale")] = np.array([scale], np.float32)
    stored |= changed.pop("tensors", {})
    quantization = {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode, **changed}
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: values for name, values in stored.items() if values is not None}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": quantization}))
    return directory


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
def test_packed_codes_and_scales_come_back(tmp_path: Path, linear_class: str) -> None:
    _, codes, scales = network()
    with open_source(write(tmp_path, linear_class=linear_class)) as source:
        for name, values in codes.items():
            tensor = source.read(name)
            assert tensor.format.name == "ternary:tensor@f32"
            assert source.tensors[name].shape == values.shape
            size = np.abs(tensor.dequantize()).max()
            assert np.array_equal(tensor.dequantize(), values * size)
            # dividing rounds twice: when the file was written and when it is read
            assert abs(size - scales[name]) <= (0 if linear_class == "autobitlinear" else 2.0**-23 * scales[name])
        assert "quantization_config" not in source.config


def test_bfloat16_scales_stay_what_they_are(tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    scale = np.array([0.123], ml_dtypes.bfloat16)
    with open_source(write(tmp_path, tensors={UP.replace(".weight", ".weight_scale"): scale})) as source:
        tensor = source.read(UP)
    assert tensor.format.name == "ternary:tensor@bf16"
    assert np.abs(tensor.dequantize()).max() == scale.astype(np.float32)[0]


def test_the_floats_of_training_become_the_ternary_weights_they_ran_as(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    packing = pytest.importorskip("transformers.integrations.bitnet")
    values = np.random.default_rng(5).normal(0, 0.1, (256, 128)).astype(np.float32)
    with open_source(write(tmp_path, mode="online", tensors={UP: values})) as source:
        tensor = source.read(UP)
        assert any("become ternary" in note for note in source.notes)
    scale = 1.0 / torch.from_numpy(values).abs().mean()
    wanted = ((torch.from_numpy(values) * scale).round().clamp(-1, 1) / scale).numpy()  # WeightQuant, uncompiled
    assert packing.WeightQuant is not None
    assert np.abs(tensor.dequantize() - wanted).max() <= 4 * 2.0**-24 * np.abs(wanted).max()


def plain_network(dequantized: dict[str, Any]) -> Any:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.BitNetConfig(**CONFIG, bos_token_id=None, eos_token_id=None)
    made = transformers.BitNetForCausalLM(config).eval().float()
    made.load_state_dict({name: torch.from_numpy(values) for name, values in dequantized.items()}, strict=False)
    made.tie_weights()
    return made


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
def test_logits_equal_transformers_with_float_inputs_and_with_those_of_8_bits(
    tmp_path: Path, linear_class: str, isa: str
) -> None:
    """Float inputs: its network with plain products. As trained: every product first rounds its inputs to 8 bits, one
    scale a token. A code may fall to the other side where the two calculate a number next to the middle of two
    codes, so single tokens stand alone, and one in five may have such a code.
    """
    torch = pytest.importorskip("torch")
    directory = write(tmp_path, linear_class=linear_class)
    floats, codes, scales = network()
    reference = plain_network({**floats, **{n: c * np.float32(scales[n]) for n, c in codes.items()}})
    tokens = np.random.default_rng(0).integers(0, 50, 30)
    with torch.no_grad():
        wanted = reference(torch.from_numpy(tokens)[None]).logits[0].numpy()
    with scrimp.open(directory, arithmetic="f32", isa=isa, threads=1) as model:
        assert np.abs(model.logits(tokens) - wanted).max() < 1e-4

    def rounded(module: Any, inputs: Any) -> Any:
        (x,) = inputs
        scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
        return ((x * scale).round().clamp(-128, 127) / scale,)

    for name, module in reference.named_modules():
        if name.endswith("_proj"):
            module.register_forward_pre_hook(rounded)
    with torch.no_grad():
        wanted = reference(torch.from_numpy(tokens)[:, None]).logits[:, 0].numpy()
    with scrimp.open(directory, isa=isa, threads=1, kv="f32") as model:
        apart = np.abs(np.concatenate([model.logits([token]) for token in tokens]) - wanted).max(axis=1)
        blocks = [op.ints for op in model.program.ops if op.kind == "linear"]
    assert np.mean(apart < 1e-4) >= 0.8, apart
    assert apart.max() < 0.1 * np.abs(wanted).max()
    assert blocks == [(1,)] * 8 + [()], "all products but the head have one scale a token"


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {
    "no scale": ({"tensors": {UP.replace(".weight", ".weight_scale"): None}}, "no packed matrix with a scale"),
    "many scales": ({"tensors": {UP.replace(".weight", ".weight_scale"): np.ones(3, np.float32)}}, "not one number"),
    "a scale of zero": ({"tensors": {UP.replace(".weight", ".weight_scale"): np.zeros(1, np.float32)}}, "positive"),
    "a negative scale": ({"tensors": {UP.replace(".weight", ".weight_scale"): -np.ones(1, np.float32)}}, "positive"),
    "an endless scale": ({"tensors": {UP.replace(".weight", ".weight_scale"): np.full(1, np.inf, np.float32)}}, "inf"),
    "too few rows": ({"tensors": {UP: np.zeros((63, 128), np.uint8)}}, "has shape 252 × 128"),
    "codes of 3": ({"tensors": {UP: np.full((64, 128), 0xFF, np.uint8)}}, "codes of 3"),
    "a vector of bytes": ({"tensors": {"model.norm.weight": np.zeros(32, np.uint8)}}, "no packed matrix"),
    "norms before products": ({"use_rms_norm": True}, "use_rms_norm"),
    "an unknown kind": ({"linear_class": "other"}, "linear_class 'other'"),
    "an unknown mode": ({"mode": "sometimes"}, "'sometimes'"),
}  # fmt: skip


@pytest.mark.parametrize("linear_class", ["autobitlinear", "bitlinear"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packing_is_refused_in_one_line(tmp_path: Path, damage: str, linear_class: str) -> None:
    changed, word = DAMAGES[damage]
    directory = write(tmp_path, **{"linear_class": linear_class, **changed})
    with pytest.raises(Refused, match=word) as caught:
        scrimp.open(directory)
    assert "\n" not in caught.value.message


# --- I2_S ------------------------------------------------------------------------------------------------------------


def i2_s(codes: np.ndarray[Any, Any], scale: float) -> bytes:
    """Byte by byte, as ggml-bitnet-mad.cpp describes its x86 layout."""
    flat = (codes.reshape(-1) + 1).tolist()
    packed = bytearray(len(flat) // 4)
    for at, code in enumerate(flat):
        block, inside = divmod(at, 128)
        packed[32 * block + inside % 32] |= code << (6 - 2 * (inside // 32))
    return bytes(packed) + np.float32(scale).tobytes() + bytes(28)


def write_i2_s(path: Path, arch: str = "bitnet-b1.58", spoil: Any = lambda name, raw: raw, **keys: Any) -> Path:
    floats, codes, scales = network()
    short = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_sub_norm": "self_attn.attn_sub_norm",
        "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "ffn_sub_norm": "mlp.ffn_sub_norm",
    }  # fmt: skip
    names = {f"model.layers.{i}.{theirs}.weight": f"blk.{i}.{ours}.weight" for ours, theirs in short.items()
             for i in range(2)}  # fmt: skip
    names |= {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    data, tensors = b"", []
    for name, values in {**floats, **codes}.items():
        ternary = name in codes
        raw = spoil(name, i2_s(values, scales[name]) if ternary else values.tobytes())
        tensors.append(g.tensor(names[name], values.shape[::-1], 36 if ternary else 0, len(data)))
        data += raw.ljust(-(-len(raw) // 32) * 32, b"\0")
    numbers = {"embedding_length": 128, "feed_forward_length": 256, "block_count": 2, "attention.head_count": 4,
               "attention.head_count_kv": 2, "context_length": 64, **keys}  # fmt: skip
    entries = [g.key("general.architecture", g.STRING, arch)]
    entries += [g.key(f"{arch}.{key}", g.U32, value) for key, value in numbers.items()]
    entries += [g.key(f"{arch}.attention.layer_norm_rms_epsilon", g.F32, 1e-5)]
    entries += [g.key(f"{arch}.rope.freq_base", g.F32, 500000.0)]
    path.write_bytes(g.gguf(entries, tensors, data))
    return path


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "bitnet-25"])
def test_a_gguf_of_bitnet_cpp_is_the_same_network(tmp_path: Path, arch: str) -> None:
    _, codes, scales = network()
    path = write_i2_s(tmp_path / "m.gguf", arch)
    with open_source(path) as source:
        for name, values in codes.items():
            tensor = source.read(name)
            assert tensor.format.name == "ternary:tensor@f32"
            assert np.array_equal(tensor.dequantize(), values * np.float32(scales[name]))
    tokens = list(range(20))
    with scrimp.open(path, threads=1) as one, scrimp.open(write(tmp_path / "hf"), threads=1) as other:
        assert np.array_equal(one.logits(tokens), other.logits(tokens))


def test_damaged_i2_s_is_refused(tmp_path: Path) -> None:
    threes = write_i2_s(tmp_path / "a.gguf", spoil=lambda name, raw: b"\xff" * 32 + raw[32:] if name == UP else raw)
    endless = write_i2_s(
        tmp_path / "b.gguf",
        spoil=lambda name, raw: raw[:-32] + np.float32(np.nan).tobytes() + raw[-28:] if name == UP else raw,
    )
    for path, word in ((threes, "codes of 3"), (endless, "infinite or NaN")):
        with pytest.raises(Refused, match=word):
            scrimp.open(path)


def test_the_older_bitnet_of_llama_cpp_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="architecture 'bitnet'"):
        open_source(write_i2_s(tmp_path / "m.gguf", "bitnet"))
