"""GGUFs of a known shape with random weights, in the block types of llama.cpp and of its relatives.

For speed only: codes are uniform, and a scale has one size everywhere, that keeps activations finite. The blocks are
written as bytes, so that a type needs its layout, not its quantizer: for a billion weights that is seconds, and
types that the ``gguf`` package does not know are no harder. The layouts are public facts of the file format
(ggml-common.h of each project).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Block:
    """How ``weights`` neighbours lie in ``size_bytes``::

        row:    [float scale, if ``row_scale``][block][block]…
        tensor: [row][row]…[32 bytes that begin with a float scale, if ``tensor_scale``]

    ``halves``: offsets of float16 scales inside a block. ``trits``: every byte has four 2-bit codes 0, 1, 2.
    ``number``: of the type in the file.
    """

    number: int
    weights: int
    size_bytes: int
    scale: float
    halves: tuple[int, ...] = ()
    row_scale: bool = False
    tensor_scale: bool = False
    trits: bool = False


#: Of all of them llama.cpp has Q4_0, Q4_K, Q6_K and TQ2_0; I2_S is bitnet.cpp's, and IQ… are ik_llama.cpp's.
BLOCKS = {
    "Q4_0": Block(2, 32, 18, 2**-7, halves=(0,)),
    "Q4_K": Block(12, 256, 144, 2**-12, halves=(0, 2)),
    "Q6_K": Block(14, 256, 210, 2**-13, halves=(208,)),
    "TQ2_0": Block(35, 256, 66, 2**-5, halves=(64,), trits=True),
    "I2_S": Block(36, 4, 1, 2**-5, tensor_scale=True, trits=True),
    "IQ2_BN": Block(135, 64, 16, 2**-5, row_scale=True, trits=True),
    "IQ4_KS": Block(144, 256, 136, 2**-13, row_scale=True),
}
#: Of the embedding, which is the head as well, unless another is wanted.
ENDS = "Q6_K"
#: The bytes whose four 2-bit codes are no 3.
TRITS = np.array([a | b << 2 | c << 4 | d << 6 for a, b, c, d in product(range(3), repeat=4)], np.uint8)


def random_matrix(block: Block, rows: int, cols: int, rng: np.random.Generator) -> U8:
    """The bytes of a tensor.

    >>> random_matrix(BLOCKS["IQ2_BN"], 8, 128, np.random.default_rng(0)).size == 8 * (4 + 2 * 16)
    True
    """
    assert cols % block.weights == 0
    shape = (rows, cols // block.weights, block.size_bytes)
    codes = (
        TRITS[rng.integers(0, TRITS.size, shape, np.uint8)] if block.trits else rng.integers(0, 256, shape, np.uint8)
    )
    for at in block.halves:
        codes[..., at : at + 2] = np.array([block.scale], np.float16).view(np.uint8)
    made, scale = codes.reshape(rows, -1), np.array([block.scale], np.float32).view(np.uint8)
    if block.row_scale:
        made = np.hstack([np.broadcast_to(scale, (rows, scale.size)), made])
    if block.tensor_scale:
        return np.concatenate([made.ravel(), np.resize(scale, 32)])
    return made.ravel()


def write_random_gguf(path: Path, config: Mapping[str, Any], type_name: str, ends: str = ENDS) -> None:
    """``config``: of ``scrimp.sources.shapes``, of model type llama or bitnet with a tied head, of type ``ends``."""
    from gguf import GGUFWriter

    assert config["tie_word_embeddings"]
    arch, rng = config["model_type"], np.random.default_rng(0)
    new = path.with_suffix(".new")
    writer = GGUFWriter(new, arch)
    _describe(writer, config)
    for name, shape in tensors(config).items():
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            block = BLOCKS[ends if name == "token_embd.weight" else type_name]
            made = random_matrix(block, *shape, rng)
            writer.add_tensor(name, made.view(np.int8), raw_shape=shape, raw_dtype=block.number)  # type: ignore[arg-type]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    new.replace(path)


def tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """name → outputs and inputs, or the length of a norm."""
    width, ffn, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    keys = config["num_key_value_heads"] * width // heads
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,), "attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width),
        "attn_output": (width, width), "ffn_norm": (width,), "ffn_gate": (ffn, width), "ffn_up": (ffn, width),
        "ffn_down": (width, ffn),
    }  # fmt: skip
    if config["model_type"] == "bitnet":
        layer |= {"attn_sub_norm": (width,), "ffn_sub_norm": (ffn,)}
    layers = {
        f"blk.{i}.{name}.weight": shape for i in range(config["num_hidden_layers"]) for name, shape in layer.items()
    }
    return {"token_embd.weight": (config["vocab_size"], width), "output_norm.weight": (width,)} | layers


def _describe(writer: Any, config: Mapping[str, Any]) -> None:
    """The metadata, and a vocabulary that no one reads: 259 tokens which loaders look for, then fillers."""
    from gguf import TokenType

    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(config["vocab_size"])
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    fillers = config["vocab_size"] - len(words)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words + [f"w{i}" for i in range(fillers)])
    writer.add_token_scores([0.0] * config["vocab_size"])
    writer.add_token_types([int(kind) for kind in kinds] + [int(TokenType.NORMAL)] * fillers)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
