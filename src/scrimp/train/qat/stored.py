"""A network that was trained before, as torch runs it: a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scrimp.errors import ScrimpError
from scrimp.integer.at_rest import Tensors
from scrimp.models.cnn import Net
from scrimp.store.net import open_net
from scrimp.tensors import QTensor
from scrimp.train.qat.recipe import FLOAT
from scrimp.train.qat.student import EPSILON, Student


def teacher(path: Path, net: Net) -> Student:
    """A store for a student of ``net``. ScrimpError where there is none, or it looks at other pictures."""
    if not path.is_dir():
        what = "is no directory" if path.exists() else "does not exist"
        raise ScrimpError(f"The teacher {path} {what}.", hint="train it first: scrimp train RECIPE.toml -o DIR")
    theirs, tensors = open_net(path)
    last = theirs.shapes()[theirs.nodes[-1].name].size
    if theirs.image != net.image or last != net.nodes[-1].outputs:
        ours = f"{net.nodes[-1].outputs} of {net.image}"
        raise ScrimpError(f"The teacher {path} tells {last} classes of {theirs.image}; the student {ours}.",
                          hint="both must see the same pictures")  # fmt: skip
    if theirs.pixels != net.pixels:
        raise ScrimpError(f"The teacher {path} reads bytes in another way than the student.",
                          hint="train a teacher with this version of scrimp")  # fmt: skip
    return as_stored(theirs, tensors)


def as_stored(net: Net, tensors: Tensors) -> Student:
    """Stored numbers in float32; activations rounded to their steps unless all weights are float32 as well."""
    names = {f"op{at}": node.name for at, node in enumerate(net.nodes)}  # "forward" is taken in a module of torch
    student = Student(_renamed(net, {old: new for new, old in names.items()}))
    plain = all(t.format == FLOAT[0] for t in tensors.values() if isinstance(t, QTensor))
    student.store_as(dict.fromkeys(student.products, FLOAT), "float" if plain else "static")
    with torch.no_grad():
        for name, trained in student.weights.items():
            weight, gain, bias = (_dense(tensors[f"{names[name]}.{part}"]) for part in ("weight", "gain", "bias"))
            if name in student.norms:
                norm = student.norms[name]
                assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
                assert norm.running_var is not None
                norm.weight.copy_(gain)
                norm.bias.copy_(bias)
                norm.running_var.fill_(1 - EPSILON)
            else:
                weight = weight * gain[:, None]
                student.bias.copy_(bias)
            trained.latent.copy_(weight)
        for name, activation in student.roundings.items():
            activation.first = _dense(tensors[f"{names[name]}.step"])[0]
    return student.eval().requires_grad_(False)


def _renamed(net: Net, names: Mapping[str, str]) -> Net:
    """``names``: old → new; the input keeps its own."""
    nodes = (
        replace(node, name=names[node.name], inputs=tuple(names.get(name, name) for name in node.inputs))
        for node in net.nodes
    )
    return replace(net, nodes=tuple(nodes))


def _dense(tensor: object) -> torch.Tensor:
    return torch.from_numpy(tensor.dequantize() if isinstance(tensor, QTensor) else np.array(tensor))
