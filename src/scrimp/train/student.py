"""The network that learns: a store's Program, its matrices and vectors as parameters, and the way back to a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scrimp.errors import Refused
from scrimp.formats import Format
from scrimp.models.sidecars import Beside
from scrimp.program import Program
from scrimp.quantize.decoded import decode
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor
from scrimp.train.beside import alone
from scrimp.train.executor import Network
from scrimp.train.quantized_weight import FixedWeight, QuantizedWeight, trains


class LearnedVectors(Mapping[str, Tensor]):
    """Norms and biases: ``v = stored v + p · unit``, p starting at 0; the unit is between ``|v|`` and its mean."""

    def __init__(self, stored: Mapping[str, F32]) -> None:
        self._stored = {name: torch.from_numpy(np.array(values)) for name, values in stored.items()}
        self._units = {name: (v.abs() + v.abs().mean()) / 2 for name, v in self._stored.items()}
        self.parameters = {name: torch.zeros_like(v, requires_grad=True) for name, v in self._stored.items()}

    def __getitem__(self, name: str) -> Tensor:
        return torch.addcmul(self._stored[name], self.parameters[name], self._units[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


@dataclass(frozen=True, slots=True)
class Student:
    """``fixed`` names the matrices that stay as they are, as stored."""

    network: Network
    matrices: Mapping[str, QuantizedWeight | FixedWeight]
    vectors: LearnedVectors
    fixed: Mapping[str, QTensor]

    @property
    def hidden(self) -> int:
        """The buffer that the head multiplies with."""
        return self.network.program.ops[-1].inputs[0]

    @property
    def head(self) -> QuantizedWeight | FixedWeight:
        return self.matrices[self.network.program.ops[-1].weights[0]]

    def parameters(self) -> dict[str, dict[str, Tensor]]:
        """kind (scales, mins, codes, vectors) → name → what learns."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, weight in self.matrices.items():
            if isinstance(weight, QuantizedWeight):
                for kind, values in weight.parameters.items():
                    found.setdefault(kind, {})[name] = values
        if self.vectors.parameters:
            found["vectors"] = self.vectors.parameters
        return found

    def format(self, name: str) -> Format:
        """How a matrix is stored."""
        weight = self.matrices[name]
        return weight.format if isinstance(weight, QuantizedWeight) else self.fixed[name].format

    def settle(self, names: Iterable[str] | None = None) -> None:
        """After parameters (of some matrices) changed in place."""
        for name in self.matrices if names is None else names:
            weight = self.matrices[name]
            if isinstance(weight, QuantizedWeight):
                weight.settle()

    def tensors(self) -> dict[str, QTensor | F32]:
        """Everything as it is stored."""
        found: dict[str, QTensor | F32] = dict(self.fixed)
        for name, weight in self.matrices.items():
            if isinstance(weight, QuantizedWeight):
                found[name] = weight.tensor()
        return found | {name: values.detach().numpy() for name, values in self.vectors.items()}


def load(
    store: Source,
    program: Program,
    beside: Mapping[str, Beside] | None = None,
    *,
    original: Source | None = None,
    ends: bool = False,
    half: bool = False,
) -> Student:
    """A store as a student. With the ``original`` codes learn too; with ``ends`` also embedding and head; ``half`` is
    for machines that multiply bfloat16 faster.

    ``program`` has the side-cars that stand ``beside`` matrices attached. Matrices in formats without scales of their
    own stay as they are.
    """
    check_head(program)
    still = set() if ends else _ends(program)
    matrices: dict[str, QuantizedWeight | FixedWeight] = {}
    fixed: dict[str, QTensor] = {}
    for name in program.matrices:
        tensor = store.read(name)
        assert isinstance(tensor, QTensor)
        if name in still or not trains(tensor.format):
            fixed[name], matrices[name] = tensor, FixedWeight(decode(tensor), half=half)
            continue
        weight = None if original is None or name not in original.tensors else original.read(name)
        exact = decode(weight) if isinstance(weight, QTensor) else None
        rounded = None if exact is None else alone(exact, name, (beside or {}).get(name), store.read)
        matrices[name] = QuantizedWeight(tensor, rounded, half=half)
    stored = {name: store.read(name) for name in program.vectors}
    vectors = LearnedVectors({name: v for name, v in stored.items() if isinstance(v, np.ndarray)})
    return Student(Network(program, matrices, vectors), matrices, vectors, fixed)


def _ends(program: Program) -> set[str]:
    """Embedding and head: the matrices of the vocabulary."""
    return {name for op in (program.ops[0], program.ops[-1]) for name in op.weights}


def check_head(program: Program) -> None:
    """Refused unless the network ends in a product without a bias."""
    last = program.ops[-1]
    if last.kind != "linear" or len(last.weights) != 1 or any(last.vectors):
        raise Refused(f"The network ends in '{last}', and a product without a bias is needed there.",
                      hint="such networks have no gradients here yet")  # fmt: skip
