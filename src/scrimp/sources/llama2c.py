"""Checkpoints of karpathy's llama2.c: the legacy file, version 1 (float32) and version 2 (int8 groups).

The files are tensors one after another; only the header says how long each is, so the file's length is checked against
it exactly. Every kind of tensor lies there for all layers in a row. Source: export.py of llama2.c.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.formats import Format, parse
from scrimp.formats.format import GROUPS
from scrimp.models import llama
from scrimp.sources.checks import check_finite, check_tensors
from scrimp.sources.mapped import forget_pages, map_file, unmap
from scrimp.sources.rotary_order import halves_from_pairs
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import QTensor, from_codes, from_floats

MAGIC = 0x616B3432
#: dim, hidden_dim, layers, heads, kv_heads, vocab, max_seq_len
_COUNTS = struct.Struct("<7i")
_HEADER_BYTES = 256

_EMBEDDING, _NORM, _HEAD = "embedding", "norm", "head"
#: cos and sin of the rotary angles, (max_seq_len, head_dim / 2) float32 each; computed, not read
_TABLES = "tables"
_LEGACY_ORDER = (_EMBEDDING, "attn_norm", "q", "k", "v", "o", "ffn_norm", "gate", "down", "up", _NORM, _TABLES, _HEAD)
_ORDER = ("attn_norm", "ffn_norm", _NORM, _EMBEDDING, "q", "k", "v", "o", "gate", "down", "up", _HEAD)
_GLOBAL = {_EMBEDDING: llama.EMBEDDING, _NORM: llama.NORM, _HEAD: llama.HEAD}


@dataclass(frozen=True, slots=True)
class _Header:
    version: int  #: 0 for the legacy file
    nbytes: int
    counts: tuple[int, ...]
    tied: bool
    group: int  #: of version 2, else 0


@dataclass(frozen=True, slots=True)
class _Stored:
    shape: tuple[int, ...]
    offset: int
    group: int  #: 0: float32; else int8 in groups of this many, followed by their float32 scales

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count + self.count // self.group * 4 if self.group else self.count * 4


def open_llama2c(path: Path, tokenizer: Path | None) -> Llama2cSource:
    """Check header and length; no weights are read. ``tokenizer`` is the ``tok*.bin`` that belongs to the network: the
    only one beside it where none is named."""
    if tokenizer is None:
        beside = [file for file in path.parent.glob("tok*.bin") if file.name != path.name]
        if len(beside) != 1:
            raise UsageError(f"{path} does not bring a tokenizer.",
                             hint="put its tok*.bin beside it, or name it with --tokenizer")  # fmt: skip
        (tokenizer,) = beside
    if not tokenizer.is_file():
        raise ScrimpError(
            f"The tokenizer {tokenizer} does not exist.", hint="llama2.c calls it tokenizer.bin or tok512.bin"
        )
    return Llama2cSource(path, tokenizer)


class Llama2cSource(Source):
    """A mapped checkpoint with the names and rotary order of Hugging Face."""

    kind = "llama2c"

    def __init__(self, path: Path, tokenizer: Path) -> None:
        self._data = map_file(path)
        try:
            header = _header(path, self._data[:_HEADER_BYTES])
            config = _config(header)
            self._stored = _layout(path, header, config, len(self._data))
            check_tensors(path, config, {name: stored.shape for name, stored in self._stored.items()})
        except BaseException:
            unmap(self._data)
            raise
        self._heads = {"q": config["num_attention_heads"], "k": config["num_key_value_heads"]}
        super().__init__(
            path,
            config=config,
            tensors={
                name: TensorInfo(name, s.shape, f"int8 in groups of {s.group}" if s.group else "F32", s.nbytes)
                for name, s in self._stored.items()
            },
            tokenizer=TokenizerData.llama2c(tokenizer, config["vocab_size"]),
            notes=_notes(header, self._stored),
            file_bytes=len(self._data) + tokenizer.stat().st_size,
        )

    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        stored = self._stored[name]
        tensor = self._int8(name, stored) if stored.group else self._floats(name, stored)
        check_finite(self.path, name, tensor)
        forget_pages(self._data, stored.offset, stored.nbytes)
        return tensor

    def close(self) -> None:
        unmap(self._data)

    def _floats(self, name: str, stored: _Stored) -> QTensor | NDArray[np.float32]:
        values = np.frombuffer(self._data, "<f4", stored.count, stored.offset).reshape(stored.shape)
        if values.ndim == 1:
            return values.astype(np.float32)
        return from_floats(parse("f32"), self._in_rotary_order(name, values))

    def _int8(self, name: str, stored: _Stored) -> QTensor:
        rows, cols = stored.shape
        codes = np.frombuffer(self._data, np.uint8, stored.count, stored.offset).reshape(rows, cols)
        scales = np.frombuffer(self._data, "<f4", stored.count // stored.group, stored.offset + stored.count)
        # a value is at most 128 scales, so no product overflows if this one does not
        with np.errstate(over="ignore"):
            check_finite(self.path, f"{name} (scales)", np.abs(scales) * np.float32(128))
        codes = codes ^ np.uint8(128)  # two's complement with the sign bit flipped is the value + 128
        equal = _equal_format(stored.group, cols)
        if equal is None:
            steps = codes.reshape(-1, stored.group).astype(np.float32) - np.float32(128)
            return from_floats(parse("f32"), self._in_rotary_order(name, (scales[:, None] * steps).reshape(rows, cols)))
        by_row = self._in_rotary_order(name, scales.reshape(rows, -1))
        return from_codes(equal, self._in_rotary_order(name, codes), np.ascontiguousarray(by_row, np.float32))

    def _in_rotary_order(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        for short, heads in self._heads.items():
            if name.endswith(llama.LAYER[short]):
                return halves_from_pairs(rows, heads)
        return rows


def _header(path: Path, head: bytes) -> _Header:
    if len(head) < _COUNTS.size:
        raise Refused(f"{path} has {len(head)} bytes; a llama2.c header has {_COUNTS.size}.", hint="download it again")
    if int.from_bytes(head[:4], "little") != MAGIC:
        *counts, vocab, longest = _COUNTS.unpack_from(head)
        return _Header(0, _COUNTS.size, (*counts, abs(vocab), longest), vocab > 0, 0)
    if len(head) < _HEADER_BYTES:
        raise Refused(f"{path} has {len(head)} bytes; its header has {_HEADER_BYTES}.", hint="download it again")
    (version,) = struct.unpack_from("<i", head, 4)
    if version not in (1, 2):
        raise Refused(f"{path} is version {version} of llama2.c's file; 0, 1 and 2 are read.", hint="export it again")
    shared, (group,) = head[36], struct.unpack_from("<i", head, 37)
    if shared > 1:
        raise Refused(f"{path} says {shared} where 0 or 1 must tell a tied head.", hint="the file is damaged")
    if version == 2 and not 1 <= group <= 2**20:
        raise Refused(f"{path} has groups of {group:,}; 1 to {2**20:,} are possible.", hint="the file is damaged")
    return _Header(version, _HEADER_BYTES, _COUNTS.unpack_from(head, 8), bool(shared), group if version == 2 else 0)


def _config(header: _Header) -> dict[str, Any]:
    dim, hidden, layers, heads, kv_heads, vocab, longest = header.counts
    return {
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": longest,
        "rms_norm_eps": 1e-5,  # llama2.c knows no other
        "rope_theta": 10000.0,
        "tie_word_embeddings": header.tied,
        "hidden_act": "silu",
    }


def _layout(path: Path, header: _Header, config: dict[str, Any], size: int) -> dict[str, _Stored]:
    """Where every tensor lies; Refused unless they end exactly with the file."""
    parsed = llama.parse(config)
    matrices, vectors = llama.tensors(parsed)
    shapes: dict[str, tuple[int, ...]] = {**matrices, **{name: (count,) for name, count in vectors.items()}}
    stored: dict[str, _Stored] = {}
    at = header.nbytes
    for part in _ORDER if header.version else _LEGACY_ORDER:
        if part == _TABLES:
            at += 2 * 4 * parsed.context * (parsed.head_dim // 2)
            continue
        for name in _names(part, parsed.layers, parsed.tied):
            group = header.group if name in matrices else 0
            stored[name] = _Stored(shapes[name], at, group)
            count = stored[name].count
            if group and count % group:
                raise Refused(f"{path}: {name} has {count:,} weights, which groups of {group} do not divide.",
                              hint="the file is damaged")  # fmt: skip
            at += stored[name].nbytes
    if at != size:
        raise Refused(f"{path} has {size:,} bytes; a llama2.c checkpoint with its header has {at:,}.",
                      hint="the file is incomplete, or no llama2.c checkpoint at all")  # fmt: skip
    return stored


def _names(part: str, layers: int, tied: bool) -> Iterator[str]:
    if part == _HEAD and tied:
        return
    if part in _GLOBAL:
        yield _GLOBAL[part]
    else:
        yield from (llama.name(layer, part) for layer in range(layers))


def _equal_format(group: int, cols: int) -> Format | None:
    """int8 with float32 scales, where groups lie inside rows and scrimp stores groups of this size."""
    if group in GROUPS and cols % group == 0:
        return parse(f"int8:g{group}@f32")
    return parse("int8:row@f32") if group == cols else None


def _notes(header: _Header, stored: dict[str, _Stored]) -> list[str]:
    decoded = sum(1 for s in stored.values() if s.group and _equal_format(s.group, s.shape[1]) is None)
    return [f"int8 in groups of {header.group} → f32 (no equal Format): {decoded} tensors"] if decoded else []
