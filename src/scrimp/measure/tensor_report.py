"""What is in a model: of every tensor its bytes, the entropy of its codes, and the spread of its values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.engine.cache import OFFERED, bytes_per_position
from scrimp.engine.float_path import decoded_notes, row_pieces, row_reader
from scrimp.errors import UsageError, nearest
from scrimp.formats import parse
from scrimp.progress import SILENT, Progress
from scrimp.quantize.pool import pool
from scrimp.sources.source import Source
from scrimp.tensors import DTYPES, QTensor

#: Bars of a histogram, from the least to the greatest value.
BINS = 48
_WEIGHTS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor. ``entropy_bits`` is the Shannon entropy of its codes taken one by one (their histogram, no context);
    ``capacity_used`` is that over ``log2(levels)``; both None for float32, whose codes are too many to count.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    stored: str  #: what the file calls it
    bytes: int  #: in the file
    bits_per_weight: float
    entropy_bits: float | None
    capacity_used: float | None
    min: float
    max: float
    mean: float
    std: float

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Totals count every file that is needed to run; ``parameters`` those of the original network."""

    model: str
    kind: str
    file_bytes: int
    parameters: int
    tensors: tuple[TensorReport, ...]
    notes: tuple[str, ...]
    kv_bytes_per_token: dict[str, int]  #: format of the key/value cache → bytes per token of context; of text only

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.file_bytes / self.parameters

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {name: getattr(self, name) for name in ("model", "kind", "file_bytes", "parameters")}
        document |= {"bits_per_weight": self.bits_per_weight, "notes": list(self.notes)}
        document["kv_bytes_per_token"] = self.kv_bytes_per_token
        return document | {"tensors": [tensor.to_json() for tensor in self.tensors]}


def inspect_model(source: Source, *, progress: Progress = SILENT) -> ModelReport:
    """Every tensor of a source, read once."""
    parameters = source.parameters
    progress.start("inspect", sum(math.prod(info.shape) for info in source.tensors.values()))
    reports = []
    for name, info in source.tensors.items():
        reports.append(inspect_tensor(source, name))
        progress.advance(math.prod(info.shape), name)
    progress.finish()
    matrices = [(parse(found.format), (found.shape[0], found.shape[1])) for found in reports if len(found.shape) == 2]
    notes = (*source.notes, *decoded_notes(matrices))
    cache = {} if models.sees(source.config) else _cache(source)
    return ModelReport(str(source.path), source.kind, source.file_bytes, parameters, tuple(reports), notes, cache)


def _cache(source: Source) -> dict[str, int]:
    _, program = models.build(source.config)
    return {str(kv): bytes_per_position(program, kv) for kv in OFFERED}


def inspect_tensor(source: Source, name: str) -> TensorReport:
    """One tensor by name; UsageError with the nearest name when there is none."""
    info = source.tensors.get(name) or source.tensors.get(f"{name}.weight")
    if info is None:
        hint = nearest(name, list(source.tensors)) or "scrimp inspect without --tensor lists them"
        raise UsageError(f"{source.path} has no tensor '{name}'.", hint=hint)
    tensor = source.read(info.name)
    weights = math.prod(info.shape)
    entropy = code_entropy(tensor) if isinstance(tensor, QTensor) else None
    low, high, total, squares = (np.array(column) for column in zip(*_each(tensor, _extent_and_sums), strict=True))
    mean = math.fsum(total) / weights
    return TensorReport(
        name=info.name,
        shape=info.shape,
        format=tensor.format.name if isinstance(tensor, QTensor) else "f32",
        stored=info.stored,
        bytes=info.nbytes,
        bits_per_weight=8 * info.nbytes / weights,
        entropy_bits=entropy,
        capacity_used=None if entropy is None else entropy / math.log2(_levels(tensor)),
        min=float(low.min()),
        max=float(high.max()),
        mean=mean,
        std=math.sqrt(max(0.0, math.fsum(squares) / weights - mean * mean)),
    )


def code_entropy(tensor: QTensor) -> float | None:
    """``-Σ p log2 p`` of the codes' histogram in bits; None for float32.

    >>> from scrimp.formats import parse
    >>> from scrimp.quantize.rtn import quantize
    >>> code_entropy(quantize(np.array([[1.0, -1.0, 1.0, -1.0]], np.float32), parse("binary")))
    1.0
    """
    if tensor.format.element.name == "f32":
        return None
    levels = _levels(tensor)
    counts = np.sum(list(pool().map(lambda part: np.bincount(part, minlength=levels), _code_parts(tensor))), axis=0)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def histogram(tensor: QTensor | NDArray[np.float32], low: float, high: float) -> list[int]:
    """How many values lie in each of ``BINS`` equal ranges from ``low`` to ``high``."""
    scale = BINS / (high - low) if high > low else 0.0

    def count(values: NDArray[np.float32]) -> NDArray[np.int64]:
        bins = np.clip((values.ravel().astype(np.float64) - low) * scale, 0, BINS - 1).astype(np.uint8)
        return np.bincount(bins, minlength=BINS)

    return [int(n) for n in np.sum(list(_each(tensor, count)), axis=0)]


def _extent_and_sums(values: NDArray[np.float32]) -> tuple[float, float, float, float]:
    squares = np.einsum("nk,nk->n", values, values).sum(dtype=np.float64)
    return float(values.min()), float(values.max()), float(values.sum(axis=1).sum(dtype=np.float64)), float(squares)


def _each(tensor: QTensor | NDArray[np.float32], function: Any) -> Iterator[Any]:
    """``function`` of some decoded rows at a time."""
    if not isinstance(tensor, QTensor):
        return iter([function(tensor[None])])
    read = row_reader(tensor)
    return pool().map(lambda rows: function(read(rows.start, rows.stop)), row_pieces(tensor))


def _code_parts(tensor: QTensor) -> list[NDArray[Any]]:
    """The codes as flat pieces of unsigned integers; of 16-bit floats their bits, padding left out."""
    flat: NDArray[Any]
    element = tensor.format.element
    if element.kind == "float":
        from scrimp.formats import packing

        kind = DTYPES[element.name]
        flat = np.ascontiguousarray(packing.unpack_floats(tensor.planes[0], kind, tensor.shape)).ravel()
        flat = flat.view(np.uint32) >> (32 - element.bits) if element.name == "tf32" else flat.view(np.uint16)
    else:
        flat = tensor.codes().ravel()
    return [flat[at : at + _WEIGHTS_AT_ONCE] for at in range(0, flat.size, _WEIGHTS_AT_ONCE)]


def _levels(tensor: QTensor | NDArray[np.float32]) -> int:
    return tensor.format.element.levels if isinstance(tensor, QTensor) else 2**32
