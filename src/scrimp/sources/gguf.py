"""GGUF files: header in :mod:`gguf_header`, block types in :mod:`gguf_blocks`; here they become a Source."""

from __future__ import annotations

import mmap
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.models import GGUF_ARCHITECTURES, architecture
from scrimp.sources.checks import check_finite, check_tensors
from scrimp.sources.gguf_blocks import U8, i2_s, narrowest, to_floats, to_qtensor
from scrimp.sources.gguf_header import GgufHeader, GgufTensor, Value, parse_header
from scrimp.sources.mapped import forget_pages, map_file, unmap
from scrimp.sources.rotary_order import halves_from_pairs
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import QTensor

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
#: The frequency factors of Llama 3.1's rotary scaling, which Hugging Face keeps in the config instead.
_ROPE_FACTORS = "rope_freqs.weight"
_EMBEDDING = "token_embd.weight"


def open_gguf(path: Path) -> GgufSource:
    """Map the file, check its header and its network; no weights are read."""
    data = map_file(path)
    try:
        return GgufSource(path, data, parse_header(data, str(path)))
    except BaseException:
        unmap(data)
        raise


class GgufSource(Source):
    """A memory-mapped GGUF file with the tensor names and rotary order of Hugging Face."""

    kind = "gguf"

    def __init__(self, path: Path, data: mmap.mmap, header: GgufHeader) -> None:
        self._data = data
        arch = header.metadata.get("general.architecture")
        module = architecture(arch, GGUF_ARCHITECTURES)
        self._offset: float = module.GGUF_OFFSET
        split = header.metadata.get("split.count", 0)
        if split not in (0, 1):
            raise Refused(
                f"{path} is one of {split} parts of a split GGUF.", hint="join them with llama-gguf-split --merge"
            )
        #: Hugging Face name → what the file holds
        self._stored = _by_huggingface_name(path, module, header)
        config = _config(path, data, module, header)
        shapes = {name: tensor.shape for name, tensor in self._stored.items()}
        check_tensors(path, config, shapes)
        for tensor in self._stored.values():
            if not tensor.type.readable:
                raise Refused(f"{path}: {tensor.name} is stored as {tensor.type.name}, which scrimp cannot read.",
                              hint="convert the model to another type first, for example Q8_0")  # fmt: skip
        self._heads = {
            f"model.layers.{layer}.{suffix}": config[heads]
            for suffix, heads in module.GGUF_PERMUTED.items()
            for layer in range(config["num_hidden_layers"])
        }
        super().__init__(
            path,
            config=config,
            tensors={
                name: TensorInfo(name, tensor.shape, tensor.type.name, tensor.nbytes)
                for name, tensor in self._stored.items()
            },
            tokenizer=_tokenizer(path, header.metadata, config["vocab_size"]),
            notes=_notes(self._stored),
            file_bytes=len(data),
        )

    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        stored = self._stored[name]
        tensor = self._decode(name, stored)
        check_finite(self.path, name, tensor)
        forget_pages(self._data, stored.offset, stored.nbytes)
        return tensor

    def close(self) -> None:
        unmap(self._data)

    def _decode(self, name: str, stored: GgufTensor) -> QTensor | NDArray[np.float32]:
        raw = np.frombuffer(self._data, np.uint8, stored.nbytes, stored.offset)
        if len(stored.shape) == 1:
            values = _vector(raw, stored)
            return values - np.float32(self._offset) if self._offset else values
        if stored.type.tail:
            return i2_s(raw, stored.shape, f"{self.path}: {name}")
        rows = raw.reshape(stored.shape[0], -1)
        if name in self._heads:
            rows = halves_from_pairs(rows, self._heads[name])
        equal = to_qtensor(stored.type, rows)
        if equal is not None:
            return equal
        if stored.type.format is not None:
            self.notes.append(f"{stored.type.name} → floats: {name} has values outside {stored.type.format.name}")
        return narrowest(to_floats(stored.type, rows))


def _by_huggingface_name(path: Path, module: ModuleType, header: GgufHeader) -> dict[str, GgufTensor]:
    found: dict[str, GgufTensor] = {}
    for tensor in header.tensors.values():
        if tensor.name == _ROPE_FACTORS:
            continue
        name = _name(module, tensor.name)
        if name in found:
            raise Refused(
                f"{path}: {found[name].name} and {tensor.name} are the same tensor.", hint="the file is hostile"
            )
        found[name] = tensor
    return found


def _name(module: ModuleType, name: str) -> str:
    """The Hugging Face name; a name that the architecture does not know stays as it is and is refused later."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return str(module.GGUF_NAMES.get(name, name))
    pattern = module.GGUF_NAMES.get(f"blk.{{i}}.{match[2]}")
    return name if pattern is None else str(pattern.format(i=match[1]))


def _config(path: Path, data: mmap.mmap, module: ModuleType, header: GgufHeader) -> dict[str, Any]:
    config: dict[str, Any] = module.config_from_gguf(header.metadata, set(header.tensors))
    embedding = header.tensors.get(_EMBEDDING)
    if embedding is None:
        raise Refused(f"{path} has no {_EMBEDDING}.", hint="it holds no language model, or only a part of one")
    config["vocab_size"] = embedding.shape[0]
    if (factors := header.tensors.get(_ROPE_FACTORS)) is not None:
        raw = np.frombuffer(data, np.uint8, factors.nbytes, factors.offset)
        if factors.type.name != "F32" or len(factors.shape) != 1 or factors.shape[0] > 4096:
            raise Refused(f"{path}: {_ROPE_FACTORS} is no short vector of F32.", hint="the file is damaged")
        config["rope_scaling"] = {"rope_type": "factors", "factors": raw.view("<f4").tolist()}
    return config


def _tokenizer(path: Path, metadata: dict[str, Value], vocab_size: int) -> TokenizerData:
    tokenizer = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    if not tokenizer:
        return TokenizerData.none()
    tokens = tokenizer.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise Refused(f"{path}: tokenizer.ggml.tokens is no list of strings.", hint="the file is damaged")
    if len(tokens) != vocab_size:
        raise Refused(f"{path}: the tokenizer has {len(tokens):,} tokens, the embedding {vocab_size:,} rows.",
                      hint="the file is damaged, or its tokenizer belongs to another model")  # fmt: skip
    return TokenizerData.gguf(tokenizer)


def _notes(stored: dict[str, GgufTensor]) -> list[str]:
    counts = Counter(tensor.type.name for tensor in stored.values() if tensor.type.format is None)
    return [
        f"{kind} → f16 where that is exact, else f32 (no equal Format): {count} tensor{'s' if count > 1 else ''}"
        for kind, count in sorted(counts.items())
    ]


def _vector(raw: U8, stored: GgufTensor) -> NDArray[np.float32]:
    if stored.type.name == "F32":
        return raw.view(np.float32).copy()
    one_row = raw.reshape(1, -1)
    tensor = to_qtensor(stored.type, one_row)
    values: NDArray[np.float32] = to_floats(stored.type, one_row) if tensor is None else tensor.dequantize()
    return values.reshape(-1)
