"""A module of torch as the list of its operations: ``torch.export``, functional, with the numbers of its parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Call:
    """One operation: ``arguments`` are names of earlier ones (as :class:`Made`), numbers of parameters, or plain."""

    name: str
    op: str  #: "conv2d", "relu", …: as ATen calls it
    place: str  #: where the module has it: "layers.3"
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]  #: of what comes out
    users: int  #: operations that read it

    @property
    def words(self) -> str:
        """For errors: "sigmoid at layers.3"."""
        return f"{self.op} at {self.place}" if self.place else self.op


@dataclass(frozen=True, slots=True)
class Made:
    """What an earlier operation made, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    input: str
    shape: tuple[int, ...]
    users: int  #: of the input
    calls: tuple[Call, ...]
    output: str


def graph_of(module: Any, example: Any) -> Graph:
    """Every operation that ``module`` runs for ``example`` in eval mode. Refused where it can't be exported."""
    import torch

    was_training = module.training
    try:
        module.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own code
            exported = torch.export.export(module, (example,)).run_decompositions({})
    except Exception as error:  # torch raises errors of any kind for what it can't trace
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise Refused(f"torch.export can't follow this module: {said[0][:200]}.",
                      hint="its forward must not depend on the numbers it sees") from None  # fmt: skip
    finally:
        module.train(was_training)
    signature = exported.graph_signature
    inputs, outputs = signature.user_inputs, signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise Refused(f"The module reads {len(inputs)} and makes {len(outputs)} tensors.", hint="one picture, one row")
    nodes = {node.name: node for node in exported.graph.nodes}
    first = nodes[inputs[0]]
    calls = tuple(_calls(exported, _numbers(exported)))
    return Graph(first.name, tuple(first.meta["val"].shape), len(first.users), calls, str(outputs[0]))


def _numbers(exported: Any) -> dict[str, F64]:
    """Name in the graph → the numbers of a parameter, buffer or constant."""
    signature = exported.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    found = {name: exported.state_dict[key] if key in exported.state_dict else exported.constants[key]
             for name, key in stored.items()}  # fmt: skip
    found |= {name: exported.constants[key] for name, key in signature.inputs_to_lifted_tensor_constants.items()}
    return {name: tensor.detach().double().numpy() for name, tensor in found.items()}


def _calls(exported: Any, numbers: dict[str, F64]) -> Iterator[Call]:
    for node in exported.graph.nodes:
        if node.op != "call_function":
            continue
        schema: Any = getattr(node.target, "_schema", None)
        op = getattr(node.target, "__name__", str(node.target)) if schema is None else schema.name.split("::")[-1]
        if op == "conv2d" and schema is not None and schema.overload_name == "padding":
            op = "conv2d_padding"
        arguments = list(node.args)
        if schema is not None:  # those given by name and those left out, in the order of the schema
            for argument in schema.arguments[len(arguments) :]:
                arguments.append(node.kwargs.get(argument.name, argument.default_value))
        value = node.meta.get("val")
        shape = tuple(value.shape) if hasattr(value, "shape") else ()
        place = next(reversed([path for path, _ in node.meta.get("nn_module_stack", {}).values()]), "")
        made = tuple(_argument(argument, numbers) for argument in arguments)
        yield Call(node.name, op, place, made, shape, len(node.users))


def _argument(argument: Any, numbers: dict[str, F64]) -> Any:
    name = getattr(argument, "name", None)
    if name is None or not hasattr(argument, "users"):
        return argument
    return numbers[name] if name in numbers else Made(name)
