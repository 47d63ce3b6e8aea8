"""Networks by their shape alone: configs of known models, filled with random codes. For speed, where nothing can be
downloaded; what such a network says is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.errors import UsageError, nearest
from scrimp.formats import Format, parse
from scrimp.formats.memory import weight_array
from scrimp.formats.packing import TILE_ROWS
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import DTYPES, F32, U8, QTensor, Stored, encode_weight, from_f32, from_floats, part_shapes


def _llama(
    width: int, ffn: int, layers: int, heads: int, kv_heads: int, vocab: int, *, tied: bool = True,
    context: int = 8192, theta: float = 10000.0, **others: Any,
) -> dict[str, Any]:  # fmt: skip
    return {"model_type": "llama", "hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
            "tie_word_embeddings": tied, "max_position_embeddings": context, "rope_theta": theta} | others  # fmt: skip


_QWEN: dict[str, Any] = {"model_type": "qwen2", "context": 32768, "theta": 1e6}

#: name → config.json, as far as it concerns speed
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _llama(64, 160, 2, 4, 2, 500, context=512),
    "smollm2-135m": _llama(576, 1536, 30, 9, 3, 49152, theta=1e5),
    "smollm2-360m": _llama(960, 2560, 32, 15, 5, 49152, theta=1e5),
    "qwen2.5-0.5b": _llama(896, 4864, 24, 14, 2, 151936, **_QWEN),
    "qwen2.5-1.5b": _llama(1536, 8960, 28, 12, 2, 151936, **_QWEN),
    "llama-3.2-1b": _llama(2048, 8192, 16, 32, 8, 128256, context=131072, theta=5e5),
    "llama-3.2-3b": _llama(3072, 8192, 28, 24, 8, 128256, context=131072, theta=5e5),
    "llama-3.1-8b": _llama(4096, 14336, 32, 32, 8, 128256, tied=False, context=131072, theta=5e5),
    "tinyllama-1.1b": _llama(2048, 5632, 22, 32, 4, 32000, tied=False, context=2048),
    "bitnet-2b4t": _llama(2560, 6912, 30, 20, 5, 128256, context=4096, theta=5e5, model_type="bitnet"),
    "qwen3-0.6b": _llama(
        1024, 3072, 28, 16, 8, 151936, context=40960, theta=1e6, model_type="qwen3", head_dim=128, rms_norm_eps=1e-6
    ),
}

#: Of the embedding and the head when the rest has fewer than 4 bits, as such networks are published.
HEAD_FORMAT = "int8:g64"


def open_shape(spelled: str) -> ShapeSource:
    """``NAME:FORMAT`` or ``NAME:FORMAT,HEAD``, the latter with the format of embedding and head.

    >>> tensors = open_shape("tiny:ternary").tensors
    >>> tensors["model.layers.1.mlp.up_proj.weight"].stored, tensors["model.embed_tokens.weight"].stored
    ('ternary:row', 'int8:g64')
    """
    name, _, formats = spelled.partition(":")
    if name not in SHAPES:
        hint = f"{nearest(name, list(SHAPES))} The shapes are {', '.join(SHAPES)}"
        raise UsageError(f"'{name[:80]}' is no known shape.", hint=hint.strip())
    body, comma, head = formats.partition(",")
    if not body or (comma and not head):
        raise UsageError(f"'{spelled[:80]}' names no format.", hint=f"write --shape {name}:int4:g64")
    format = parse(body)
    few = format.element.stored_bits < 4
    return ShapeSource(spelled, SHAPES[name], format, parse(head or HEAD_FORMAT) if head or few else format)


class ShapeSource(Source):
    """Random codes, uniform over all that the format has; scales of a size that keeps activations near 1.

    Every tensor is made once, when it is first read, and stays.
    """

    kind = "shape"

    def __init__(self, spelled: str, config: Mapping[str, Any], format: Format, head: Format) -> None:
        _, program = models.build(config)
        ends = {name for op in program.ops for name in op.weights if op.kind == "embed" or program.output in op.outputs}
        self._formats = {name: head if name in ends else format for name in program.matrices}
        self._made: dict[str, QTensor | F32] = {}
        shapes = {**program.matrices, **{name: (size,) for name, size in program.vectors.items()}}
        infos = {
            name: TensorInfo(name, shape, self._formats[name].name if name in self._formats else "f32", 0)
            for name, shape in shapes.items()
        }
        super().__init__(
            Path(spelled), config=dict(config), tensors=infos, tokenizer=TokenizerData.none(), notes=[], file_bytes=0
        )

    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        if name not in self._made:
            info, rng = self.tensors[name], np.random.default_rng(list(name.encode()))
            if len(info.shape) == 1:
                self._made[name] = np.full(info.shape, float(name.endswith("weight")), np.float32)
            else:
                self._made[name] = random_tensor(self._formats[name], (info.shape[0], info.shape[1]), rng)
        return self._made[name]

    def close(self) -> None:
        self._made.clear()


def random_tensor(format: Format, shape: tuple[int, int], rng: np.random.Generator) -> QTensor:
    """A matrix of random codes, its values of a size near ``1 / sqrt(K)``; integers and codebooks without a detour."""
    element, spread = format.element, np.float32(shape[1] ** -0.5)
    if element.kind == "float" and element.name in DTYPES:
        values = rng.standard_normal(shape, np.float32) * spread
        return from_floats(format, from_f32(values, element.name))
    numbers = element.code().values if element.kind == "table" else element.step * np.arange(element.levels)
    plain = format.scale is not None and format.second is None and not (format.recipe and format.recipe.pairs)
    whole = element.planes == (0,) or element.levels == 2 ** sum(element.planes) <= 256
    if not (plain and whole and np.isfinite(numbers).all()):
        return encode_weight(rng.standard_normal(shape, np.float32) * spread, format)
    planes = tuple(_random_plane(width, span, shape, rng) for width, span in zip(element.planes, element.spans(),
                                                                                 strict=True))  # fmt: skip
    sides = part_shapes(format, shape)["scales"]
    scales = rng.uniform(0.8, 1.2, sides).astype(np.float32) * spread / np.float32(max(numbers.std(), 1e-3))
    if format.block != "tensor":
        scales[-1, :, _rows_of_last_tile(shape[0]) :] = 0
    assert format.scale is not None
    mins = _kept(from_f32(-scales * np.float32(numbers.mean()), format.scale)) if format.has_min else None
    return QTensor(format, shape, planes, _kept(from_f32(scales, format.scale)), mins)


def _random_plane(width: int, span: int, shape: tuple[int, int], rng: np.random.Generator) -> U8:
    """Padding stays 0."""
    from scrimp import _core

    rows, cols = shape
    tiles, vectors = -(-rows // TILE_ROWS), -(-cols // span)
    plane: U8 = _kept(rng.integers(0, 243 if width == 0 else 256, (tiles, vectors, 64), np.uint8))
    if ragged := cols % span:
        tail = rng.integers(0, 2**width if width else 3, (tiles * TILE_ROWS, ragged), np.uint8)
        plane[:, -1:] = _core.pack_codes(tail, [width])[0]
    plane[-1].reshape(vectors, TILE_ROWS, 4)[:, _rows_of_last_tile(rows) :] = 0
    return plane


def _rows_of_last_tile(rows: int) -> int:
    return (rows - 1) % TILE_ROWS + 1


def _kept(values: Stored) -> Any:
    """A copy where weights lie."""
    stored = weight_array(values.shape, values.dtype)
    stored[...] = values
    return stored
