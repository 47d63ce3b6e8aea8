"""What a token would take on hardware built for a model's formats: modelled from published tables, never measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrimp.engine.cache import Kv
from scrimp.formats import Format, parse
from scrimp.formats.cost import activation_of, token_energy
from scrimp.measure.traffic import Traffic
from scrimp.program import Program
from scrimp.tensors import QTensor

if TYPE_CHECKING:
    from scrimp.model import Model

#: Elements that the engine multiplies with 8-bit activations.
_WITH_INT8 = ("int", "ternary", "binary")


@dataclass(frozen=True)
class TokenEnergy:
    """Of one decoded token, in millijoules: multiply-accumulates, and the stored bytes that come from memory."""

    node: str
    memory: str
    compute_mj: float
    memory_mj: float
    interpolated: bool  #: some figure lies between or beyond the published rows

    @property
    def total_mj(self) -> float:
        return self.compute_mj + self.memory_mj

    def to_json(self) -> dict[str, Any]:
        return {"node": self.node, "memory": self.memory, "compute_mj": self.compute_mj, "memory_mj": self.memory_mj,
                "total_mj": self.total_mj, "interpolated": self.interpolated}  # fmt: skip


def energy_of(model: Model, position: int, node: str) -> TokenEnergy:
    """Of decoding the token at ``position``; tensors are read one at a time."""
    program = model.program
    formats, stored = {}, {}
    for name in (*program.matrices, *program.vectors):
        tensor = model.source.read(name)
        stored[name] = int(tensor.nbytes)
        if isinstance(tensor, QTensor):
            formats[name] = tensor.format
    return token(program, formats, stored, position, node, model.kv)


def token(
    program: Program,
    formats: Mapping[str, Format],
    stored: Mapping[str, int],
    position: int,
    node: str,
    kv: Kv = "f16",
) -> TokenEnergy:
    """``stored``: bytes of every weight as the file's format has it, whatever it is decoded to in memory."""
    moved = Traffic(program, dict(stored), kv).bytes_per_token(position)
    found = token_energy(program, formats, moved, node, position=position, activation=activation)
    return TokenEnergy(node, found.level, found.pj_compute / 1e9, found.pj_memory / 1e9, found.interpolated)


def activation(weight: Format) -> Format:
    """What the engine multiplies a weight with: 8 bits beside integers and trits; else as in ``scrimp formats``."""
    return parse("int8:row") if weight.element.kind in _WITH_INT8 else activation_of(weight)
