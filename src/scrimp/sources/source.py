"""Source: one face for every file a network can come from (docs/notes/001-the-main-path.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from scrimp.models.sidecars import owner
from scrimp.sources.tokenizer_data import TokenizerData
from scrimp.tensors import QTensor

Kind = Literal["gguf", "huggingface", "llama2c", "scrimp", "shape"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a file says of one tensor before anything of it is read."""

    name: str
    shape: tuple[int, ...]  #: ``(N, K)`` of a matrix, ``(n,)`` of a vector
    stored: str  #: how the file stores it, in the file's own words: "Q4_1", "BF16", "int4:g64"
    nbytes: int  #: bytes in the file


class Source(ABC):
    """A trained network on disk: config and tensor names in the Hugging Face manner, tensors read one at a time.

    ``read`` may be called from several threads. Matrices come as QTensor in the Format equal to what is stored, rotary
    rows in the order of two halves; vectors come as float32 arrays.
    """

    kind: Kind

    def __init__(
        self,
        path: Path,
        *,
        config: dict[str, Any],
        tensors: Mapping[str, TensorInfo],
        tokenizer: TokenizerData,
        notes: list[str],
        file_bytes: int,
        input_scales: Mapping[str, float] | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self.tensors = tensors
        self.tokenizer = tokenizer
        self.notes = notes  #: one line per kind of conversion; reading may add to it
        self.file_bytes = file_bytes  #: bytes on disk of everything needed to run
        self.input_scales = input_scales or {}  #: matrix → fixed int8 scale of what it multiplies with, or empty

    @property
    def parameters(self) -> int:
        """Numbers in the original network: what stands beside a matrix is no part of it."""
        return sum(prod(info.shape) for name, info in self.tensors.items() if owner(name) is None)

    @abstractmethod
    def read(self, name: str) -> QTensor | NDArray[np.float32]:
        """One tensor; nothing of it stays mapped or cached afterwards."""

    def quick(self, name: str) -> bool:
        """Is the tensor a view of a map, run as it is stored and hardly looked at before? Threads gain nothing then."""
        return False

    @abstractmethod
    def close(self) -> None:
        """Let go of the file. Closing twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
