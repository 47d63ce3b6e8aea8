"""What a training came to, as numbers: the command line, JSON and the page are views of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.measure.tensor_report import code_entropy
from scrimp.models.cnn import Net
from scrimp.tensors import QTensor

#: Levels whose shares are told one by one.
_FEW = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One epoch of a curve."""

    loss: float
    train_accuracy: float
    test_accuracy: float
    rate: float
    seconds: float
    weights: str


@dataclass(frozen=True, slots=True)
class Layer:
    """How the weights of an operation lie on their levels; ``capacity_used``: entropy over that of equal shares."""

    name: str
    shape: tuple[int, int]
    format: str
    bytes: int
    entropy_bits: float | None
    capacity_used: float | None
    levels: tuple[float, ...]  #: numbers that codes mean, before the scale; empty where there are many
    shares: tuple[float, ...]  #: of the codes


@dataclass(frozen=True, slots=True)
class TrainReport:
    """``accuracy`` is torch's on all test pictures after the last epoch, not the best; ``integer`` that of the
    IntegerProgram of what is stored, on the first ``integer_pictures`` of them; ``same`` counts equal answers there."""

    out: str
    recipe: Mapping[str, Any]
    parameters: int
    multiplications: int  #: of one picture
    weight_bytes: int  #: of all products as stored
    train_pictures: int
    test_pictures: int
    accuracy: float
    integer: float | None
    integer_pictures: int
    same: int
    file_bytes: int
    seconds: float
    curve: tuple[Row, ...]
    layers: tuple[Layer, ...]
    notes: tuple[str, ...]

    @property
    def accuracy_se(self) -> float:
        """Standard error: as if the test pictures were drawn anew."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / self.test_pictures)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"accuracy_se": self.accuracy_se, "recipe": dict(self.recipe)}


def layers(net: Net, tensors: Mapping[str, QTensor | NDArray[np.float32]]) -> tuple[Layer, ...]:
    """Of all products of a network, in order."""
    return tuple(_layer(node.name, tensors[f"{node.name}.weight"]) for node in net.nodes if node.multiplies)


def multiplications(net: Net) -> int:
    """Of one picture: every output of a product times its inputs."""
    shapes, tensors = net.shapes(), net.tensors()
    return sum(shapes[node.name].size * tensors[f"{node.name}.weight"][1] for node in net.nodes if node.multiplies)


def _layer(name: str, tensor: QTensor | NDArray[np.float32]) -> Layer:
    assert isinstance(tensor, QTensor)
    element = tensor.format.element
    entropy = code_entropy(tensor)
    levels: Sequence[float] = ()
    shares: Sequence[float] = ()
    if element.kind != "float" and element.levels <= _FEW:
        codes = np.bincount(tensor.codes().ravel(), minlength=element.levels)
        shares = (codes / codes.sum()).tolist()
        levels = _numbers(tensor)
    used = None if entropy is None else entropy / math.log2(element.levels)
    return Layer(name, tensor.shape, tensor.format.name, tensor.nbytes, entropy, used, tuple(levels), tuple(shares))


def _numbers(tensor: QTensor) -> list[float]:
    element = tensor.format.element
    if "codebook" in tensor.extra:
        return [float(level) for level in tensor.extra["codebook"].astype(np.float32)]
    if element.kind == "table":
        return [float(number) for number in element.code().values]
    if tensor.format.has_min:
        scale, low = float(tensor.row_scales()[0, 0]), float(tensor.row_mins()[0, 0])
        return [code + low / scale for code in range(element.levels)]
    return [float(element.step * code - element.zero) for code in range(element.levels)]
