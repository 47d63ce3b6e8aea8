"""Open a compressed model: everything checked first, then mapped; the engine runs on the mapped bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.engine.machine import default_threads
from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.models.sidecars import beside, owner
from scrimp.sources.checks import check_codes, check_finite, check_tensors, reads_codes
from scrimp.sources.json_object import read_json
from scrimp.sources.safetensors_file import SafetensorsFile, StoredTensor
from scrimp.sources.source import Source, TensorInfo
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.store import activations
from scrimp.store.declared import HINT, RANS, formats_of, is_packed
from scrimp.store.layout import ALIGNMENT, CODED, MODEL_FILE, PAD_PREFIX, coded_part, expected_parts
from scrimp.tensors import DTYPES, QTensor, Stored, from_parts, part_types

#: A packed matrix of more is decoded by several threads; smaller ones are read several at a time.
_MANY_WEIGHTS = 1 << 22


def open_store(path: Path) -> ScrimpSource:
    """Check the config, the header and that both agree; map the weights. Refused when anything is odd."""
    for name in ("config.json", MODEL_FILE):
        if not (path / name).is_file():
            raise Refused(f"{path} lacks {name}.", hint=HINT)
    config = read_json(path / "config.json")
    declared = config.pop("quantization_config", None)
    formats, shapes = formats_of(path, declared)
    ranges = declared.get("activations") if isinstance(declared, dict) else None
    file = SafetensorsFile(path / MODEL_FILE)
    try:
        return ScrimpSource(path, config, file, formats, shapes, packed=is_packed(path, declared), ranges=ranges)
    except BaseException:
        file.close()
        raise


class ScrimpSource(Source):
    """A mapped store. Tensors read from it are views of the map, and keep it alive after :meth:`close`.

    Of a ``packed`` store they are decoded each time.
    """

    kind = "scrimp"

    def __init__(
        self,
        path: Path,
        config: dict[str, Any],
        file: SafetensorsFile,
        formats: dict[str, Format],
        shapes: dict[str, tuple[int, int]],
        *,
        packed: bool = False,
        ranges: object = None,
    ) -> None:
        self._file, self._formats, self.packed = file, formats, packed
        self.formats: Mapping[str, Format] = formats  #: of every matrix
        infos: dict[str, TensorInfo] = {}
        claimed: set[str] = set()
        for name, format in formats.items():
            nbytes = 0
            if packed:
                part = coded_part(name)
                infos[name] = TensorInfo(name, shapes[name], f"{format.name} {RANS}", self._coded(part).nbytes)
                claimed.add(part)
                continue
            for part, dtype, shape, size in expected_parts(name, shapes[name], format):
                found = file.tensors.get(part)
                if found is None:
                    raise Refused(f"{path}: {part} is missing.", hint=HINT)
                if (found.dtype, found.shape) != (dtype, shape):
                    raise Refused(f"{path}: {part} is {found.dtype} {list(found.shape)}; {format.name} of "
                                  f"{list(shapes[name])} needs {dtype} {list(shape)}.", hint=HINT)  # fmt: skip
                nbytes += size
                claimed.add(part)
            infos[name] = TensorInfo(name, shapes[name], format.name, nbytes)
        for name, stored in file.tensors.items():
            if stored.offset % ALIGNMENT and not name.startswith(PAD_PREFIX):
                raise Refused(
                    f"{path}: {name} starts at byte {stored.offset:,}, no multiple of {ALIGNMENT}.", hint=HINT
                )
            if name in claimed or name.startswith(PAD_PREFIX):
                continue
            if packed and (vector := name.removesuffix(f".{CODED}")) != name:
                from scrimp.store import coded

                size = coded.vector_size(path, vector, file.bytes_of(self._coded(name).name))
                infos[vector] = TensorInfo(vector, (size,), f"f32 {RANS}", stored.nbytes)
                continue
            if stored.dtype != "F32" or len(stored.shape) != 1:
                raise Refused(f"{path}: {name} is no float32 vector and belongs to no matrix.", hint=HINT)
            infos[name] = TensorInfo(name, stored.shape, "f32", stored.nbytes)
        suffixes = {name: f".{CODED}" if packed else ".codes" if name in formats else "" for name in infos}
        first = {name: file.tensors[name + suffix].offset for name, suffix in suffixes.items()}
        infos = {name: infos[name] for name in sorted(infos, key=first.__getitem__)}
        all_shapes = {name: info.shape for name, info in infos.items()}
        check_tensors(path, config, {name: shape for name, shape in all_shapes.items() if owner(name) is None})
        if not models.sees(config):
            _check_sidecars(path, config, all_shapes, lambda name: self._vector(path, name))
        elif beside := [name for name in all_shapes if owner(name) is not None]:
            raise Refused(f"{path}: {beside[0][:80]} belongs to no network of pictures.", hint=HINT)
        has_tokenizer = (path / "tokenizer.json").is_file()
        super().__init__(
            path,
            config=config,
            tensors=infos,
            tokenizer=TokenizerData.huggingface(path) if has_tokenizer else TokenizerData.none(),
            notes=[],
            file_bytes=directory_bytes(path),
            input_scales=activations.read(path, ranges, config),
        )

    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        """One tensor, as a view of the mapped file. Numbers that no network has are Refused here."""
        info = self.tensors[name]
        if name not in self._formats:
            vector = self._vector(self.path, name)
            check_finite(self.path, name, vector)
            return vector
        format, shape = self._formats[name], (info.shape[0], info.shape[1])
        tensor = self._matrix(name, format, shape)
        check_finite(self.path, name, tensor)
        check_codes(self.path, name, tensor)
        return tensor

    def _vector(self, path: Path, name: str) -> NDArray[np.float32]:
        if self.packed:
            from scrimp.store import coded

            return coded.decode_vector(path, name, self._file.bytes_of(coded_part(name)))
        return self._file.bytes_of(name).view(np.float32)

    def _matrix(self, name: str, format: Format, shape: tuple[int, int]) -> QTensor:
        if self.packed:
            from scrimp.store import coded

            data, weights = self._file.bytes_of(coded_part(name)), shape[0] * shape[1]
            tensor = coded.decode_matrix(
                self.path, name, format, shape, data, default_threads() if weights > _MANY_WEIGHTS else 1
            )
            self._file.forget(coded_part(name))
            return tensor
        parts: dict[str, Stored] = {}
        for part, held in part_types(format).items():
            stored, kind = self._file.tensors[f"{name}.{part}"], np.dtype(np.uint8) if held == "u8" else DTYPES[held]
            parts[part] = self._file.bytes_of(stored.name).view(kind).reshape(stored.shape)
        return from_parts(name, format, shape, parts)

    def quick(self, name: str) -> bool:
        format = self._formats.get(name)
        return not self.packed and (format is None or (format.runs and not reads_codes(format)))

    def _coded(self, part: str) -> StoredTensor:
        """The part of a packed tensor: bytes."""
        found = self._file.tensors.get(part)
        if found is None:
            raise Refused(f"{self._file.path.parent}: {part} is missing.", hint=HINT)
        if found.dtype != "U8" or len(found.shape) != 1:
            raise Refused(
                f"{self._file.path.parent}: {part} is {found.dtype} {list(found.shape)}, no bytes.", hint=HINT
            )
        return found

    def close(self) -> None:
        self._file.close()


def directory_bytes(path: Path) -> int:
    """Bytes of all files of a store; the page about its training is not needed to run it."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file() and file.name != "report.html")


def _check_sidecars(
    path: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]], read: Callable[[str], NDArray[np.float32]]
) -> None:
    if not any(owner(name) for name in shapes):
        return
    _, program = models.build(config)
    try:
        beside(program, shapes, read)
    except Refused as error:
        raise Refused(f"{path}: {error.message}", hint=error.hint) from None
