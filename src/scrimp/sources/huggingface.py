"""A Hugging Face directory: ``config.json``, one or more ``.safetensors``, tokenizer files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.models import ARCHITECTURES, architecture
from scrimp.sources import bitnet_packed, sentence
from scrimp.sources.checks import check_finite, check_tensors
from scrimp.sources.json_object import read_json
from scrimp.sources.safetensors_file import SafetensorsFile, StoredTensor
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import DTYPES, QTensor, from_floats, to_f32

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TEXTS = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", _INDEX, sentence.MODULES, sentence.LIMITS,
)  # fmt: skip
_PLAIN_NAME = re.compile(r"[\w.-]{1,200}\.safetensors")
#: safetensors dtype → Format of the same bits
_FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
#: Rotary frequencies that old checkpoints store; the config says the same.
_BUFFER = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def open_huggingface(directory: Path) -> HuggingFaceSource:
    """Check config, headers and names; no weights are read (two copies of a tied embedding are compared)."""
    config = read_json(directory / "config.json")
    ternary: bitnet_packed.Convention | None = None
    if quantization := config.pop("quantization_config", None):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        if method == "bitnet" and config.get("model_type") == "bitnet":
            ternary = bitnet_packed.convention(directory, quantization)
        elif method == "scrimp":
            raise Refused(f"{directory} is a compressed model without its scrimp.json.",
                          hint="the directory is damaged or incomplete; compress the model again")  # fmt: skip
        else:
            raise Refused(f"{directory} is quantized with {str(method)[:40]!r}, which scrimp does not read.",
                          hint="start from the original float weights, or from a GGUF")  # fmt: skip
    files: list[SafetensorsFile] = []
    try:
        for path in _weight_files(directory):
            files.append(SafetensorsFile(path))
        return HuggingFaceSource(directory, config, files, ternary)
    except BaseException:
        for file in files:
            file.close()
        raise


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where the scale of a packed matrix lies."""

    name: str
    file: SafetensorsFile
    kind: str


class HuggingFaceSource(Source):
    """Mapped safetensors files; names, config and rotary order are already the canonical ones."""

    kind = "huggingface"

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        files: list[SafetensorsFile],
        ternary: bitnet_packed.Convention | None = None,
    ) -> None:
        self._files, self._ternary = files, ternary
        self._home = _homes(directory, files)
        notes = self._leave_out(directory, config)
        self._scales = self._take_scales(directory) if ternary in ("multiply", "divide") else {}
        stored = {name: file.tensors[name] for name, file in self._home.items()}
        shapes = {name: tensor.shape for name, tensor in stored.items()}
        shapes |= {name: (4 * stored[name].shape[0], *stored[name].shape[1:]) for name in self._scales}
        check_tensors(directory, config, shapes)
        if ternary == "online":
            notes.append("the floats of training become ternary, as the network was trained to run")
        if config.get("model_type") == "bert":
            config[sentence.KEY], told = sentence.embedding_of(directory)
            notes += told
        for tensor in stored.values():
            if tensor.dtype not in _FLOATS and tensor.name not in self._scales:
                raise Refused(f"{directory}: {tensor.name} is stored as {tensor.dtype}, which scrimp does not read.",
                              hint=f"save the model as one of {', '.join(_FLOATS)}")  # fmt: skip
        has_tokenizer = (directory / "tokenizer.json").is_file()
        texts = sum(path.stat().st_size for name in _TEXTS if (path := directory / name).is_file())
        super().__init__(
            directory,
            config=config,
            tensors={
                name: TensorInfo(
                    name, shapes[name], "U8, four ternary a byte" if name in self._scales else t.dtype, t.nbytes
                )
                for name, t in stored.items()
            },
            tokenizer=TokenizerData.huggingface(directory) if has_tokenizer else TokenizerData.none(),
            notes=notes,
            file_bytes=texts + sum(file.nbytes for file in files),
        )

    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        file = self._home[name]
        stored = file.tensors[name]
        if name in self._scales:
            return self._unpack(name, file, stored)
        kind = _FLOATS[stored.dtype]
        values = file.bytes_of(name).view(DTYPES[kind]).reshape(stored.shape)
        # a vector is copied: what came from the map must not outlive it
        tensor = from_floats(parse(kind), values) if values.ndim == 2 else to_f32(values, kind).copy()
        check_finite(self.path, name, tensor)
        file.forget(name)
        if self._ternary == "online" and isinstance(tensor, QTensor) and name not in (_EMBEDDING, _HEAD):
            return bitnet_packed.ternarize(to_f32(values, kind))
        return tensor

    def _unpack(self, name: str, file: SafetensorsFile, stored: StoredTensor) -> QTensor:
        beside = self._scales[name]
        scale = beside.file.bytes_of(beside.name).view(DTYPES[beside.kind])
        assert self._ternary is not None
        packed = file.bytes_of(name).reshape(stored.shape)
        tensor = bitnet_packed.unpack(f"{self.path}: {name}", packed, scale, beside.kind, self._ternary)
        file.forget(name)
        return tensor

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _take_scales(self, directory: Path) -> dict[str, _Scale]:
        """Take out the scales of packed matrices; matrix → its scale. Refused where one lacks the other."""
        found: dict[str, _Scale] = {}
        packed = [name for name, file in self._home.items() if file.tensors[name].dtype == "U8"]
        for name in packed:
            scale = name.removesuffix(bitnet_packed.WEIGHT) + bitnet_packed.SCALE
            file = self._home.get(scale)
            if file is None or len(self._home[name].tensors[name].shape) != 2:
                raise Refused(f"{directory}: {name} is no packed matrix with a scale beside it.",
                              hint=f"{scale[:80]} is missing, or the file is damaged")  # fmt: skip
            stored = file.tensors[scale]
            if stored.dtype not in _FLOATS or stored.shape not in ((), (1,)):
                raise Refused(f"{directory}: {scale} is {stored.dtype} {list(stored.shape)}, not one number.",
                              hint="the file is damaged")  # fmt: skip
            found[name] = _Scale(scale, file, _FLOATS[stored.dtype])
            del self._home[scale]
        return found

    def _leave_out(self, directory: Path, config: dict[str, Any]) -> list[str]:
        """Take out what says nothing new: rotary buffers, a head that equals the embedding it is tied to, and what the
        architecture names as of no use here."""
        buffers = [name for name in self._home if _BUFFER.fullmatch(name)]
        for name in buffers:
            del self._home[name]
        notes = (
            [f"rotary frequencies come from the config, not from the file: {len(buffers)} tensors"] if buffers else []
        )
        unused = _unused(config)
        if left := [name for name in self._home if unused and re.fullmatch(unused, name)]:
            notes.append(f"left out, since hidden states need none of it: {', '.join(sorted(left))}")
            for name in left:
                del self._home[name]
        if config.get("tie_word_embeddings") is True and _HEAD in self._home and _EMBEDDING in self._home:
            head, embedding = (self._home[name].bytes_of(name) for name in (_HEAD, _EMBEDDING))
            if not np.array_equal(head, embedding):
                raise Refused(f"{directory}: {_HEAD} differs from {_EMBEDDING}, which the config says it is tied to.",
                              hint="set tie_word_embeddings to false in config.json if both are meant")  # fmt: skip
            del self._home[_HEAD]
            notes.append(f"{_HEAD} is the same as {_EMBEDDING}: one copy is used")
        return notes


def _unused(config: Mapping[str, Any]) -> str | None:
    """Names of tensors that the architecture has no use for, as a pattern; an unknown one is refused later."""
    name = str(config.get("model_type"))
    return getattr(architecture(name), "UNUSED", None) if name in ARCHITECTURES else None


def _weight_files(directory: Path) -> list[Path]:
    """``model.safetensors``, else the files of the index, else every ``.safetensors`` there is."""
    if (directory / _SINGLE).is_file():
        return [directory / _SINGLE]
    if (directory / _INDEX).is_file():
        files = sorted(set(_weight_map(directory).values()))
        for name in files:
            if not (directory / name).is_file():
                raise Refused(f"{directory} lacks {name}, which its index names.", hint="the download is incomplete")
        return [directory / name for name in files]
    found = sorted(directory.glob("*.safetensors"))
    if not found:
        pickles = any(directory.glob("*.bin")) or any(directory.glob("*.pt"))
        hint = "pickles can run code and are not read; convert them" if pickles else "the download is incomplete"
        raise Refused(f"{directory} has no .safetensors files.", hint=hint)
    return found


def _weight_map(directory: Path) -> dict[str, str]:
    names = read_json(directory / _INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise Refused(f"{directory / _INDEX} has no weight_map.", hint="the file is damaged")
    for file in names.values():
        if not isinstance(file, str) or not _PLAIN_NAME.fullmatch(file):
            raise Refused(f"{directory / _INDEX} names the file {str(file)[:80]!r}, no plain .safetensors name.",
                          hint="the index is damaged or hostile")  # fmt: skip
    return names


def _homes(directory: Path, files: list[SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """name → the file it lies in."""
    homes: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in file.tensors:
            if name in homes:
                raise Refused(f"{directory}: {name} lies in both {homes[name].path.name} and {file.path.name}.",
                              hint="files of two models may be mixed here")  # fmt: skip
            homes[name] = file
    return homes
