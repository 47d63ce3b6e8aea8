"""A module of torch → a Net and its float weights: layer by layer what ``torch.export`` finds, or a refusal by name.

torch has pictures as (channel, row, column), a Net as (row, column, channel): kernels are turned, and so are the inputs
of a linear behind a flatten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.models.cnn import INPUT, Image, Net, Node, Pixels
from scrimp.train.torch_graph import F64, Call, Graph, Made, graph_of

F32 = NDArray[np.float32]
_HINT = "known: conv2d, linear, batch_norm behind one of them, relu, max_pool2d, avg_pool2d, adaptive_avg_pool2d, " \
        "flatten, add, dropout"  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """What an operation of torch made: the output of a Net's operation."""

    node: str
    image: Image
    flat: bool  #: a vector in torch, (channel, row, column) there
    alone: bool  #: nothing else reads it: what follows may become part of the operation that made it


@dataclass(slots=True)
class Growing:
    """The Net so far."""

    nodes: dict[str, Node]
    weights: dict[str, F64]
    values: dict[str, Value]


def net_of(module: Any, example: Any, pixels: Pixels) -> tuple[Net, dict[str, F32]]:
    """The Net that a module of torch is in eval mode, with ``NAME.weight (N, K)``, ``NAME.gain`` and ``NAME.bias``.

    Shapes
        ``example``: (n, channels, height, width), or (n, K) for a module that reads vectors
    Error
        weights are those of the module; gain and bias, where batch norm is folded, are rounded once to float32
    Refused
        with its name and place, as "sigmoid at layers.3", where an operation has no counterpart in a Net

    Steps of activations are not in it: training or calibration finds them.
    """
    graph = graph_of(module, example)
    growing = Growing({}, {}, {graph.input: _input(graph)})
    for call in graph.calls:
        if call.op not in _OPERATIONS:
            hint = "leave it out: the class is the same without it" if "softmax" in call.op else _HINT
            raise Refused(f"{call.words} has no counterpart in a network of integers.", hint=hint)
        growing.values[call.name] = _OPERATIONS[call.op](growing, call)
    last = growing.values[graph.output]
    if last.node != next(reversed(growing.nodes), INPUT):
        raise Refused(f"The module returns {last.node}, behind which it goes on.", hint="it returns what it makes last")
    if last.image.size != last.image.channels:
        raise Refused(f"The module returns pictures of {last.image.height} × {last.image.width}.",
                      hint="pool or flatten them, and let a linear make the logits")  # fmt: skip
    net = Net(growing.values[graph.input].image, pixels, tuple(growing.nodes.values()))
    net.shapes()
    return net, {name: values.astype(np.float32) for name, values in growing.weights.items()}


def _input(graph: Graph) -> Value:
    sides = graph.shape[1:]
    if len(sides) == 1:
        return Value(INPUT, Image(1, 1, sides[0]), True, graph.users == 1)
    if len(sides) != 3:
        raise Refused(f"The example has shape {graph.shape}.", hint="(n, channels, height, width), or (n, K)")
    return Value(INPUT, Image(sides[1], sides[2], sides[0]), False, graph.users == 1)


def _conv2d(growing: Growing, call: Call) -> Value:
    x, weight, bias, stride, padding, dilation, groups = call.arguments
    value, kernels = _value(growing, call, x), _numbers(call, weight)
    if padding in ("same", "valid"):
        size = kernels.shape[2] - 1
        if padding == "same" and size % 2:
            raise Refused(f"{call.words} pads one side more than the other.", hint="use a kernel of odd size")
        padding = [size // 2 if padding == "same" else 0] * 2
    if value.flat or _one(call, "dilation", dilation) != 1:
        raise Refused(f"{call.words} has a dilation or reads a vector.", hint=_HINT)
    kernel = _one(call, "kernel", kernels.shape[2:])
    turned = kernels.transpose(0, 2, 3, 1).reshape(len(kernels), -1)
    node = Node(_name(growing, call), "conv2d", (value.node,), outputs=len(kernels), kernel=kernel,
                stride=_one(call, "stride", stride), padding=_one(call, "padding", padding), groups=groups)  # fmt: skip
    return _product(growing, call, node, turned, bias)


def _linear(growing: Growing, call: Call) -> Value:
    x, weight, bias = call.arguments
    value, rows = _value(growing, call, x), _numbers(call, weight)
    image = value.image
    if not value.flat:
        raise Refused(f"{call.words} reads pictures, not vectors.", hint="put a flatten before it")
    turned = rows.reshape(len(rows), image.channels, image.height, image.width).transpose(0, 2, 3, 1)
    node = Node(_name(growing, call), "linear", (value.node,), outputs=len(rows))
    return _product(growing, call, node, turned.reshape(len(rows), -1), bias)


def _product(growing: Growing, call: Call, node: Node, weight: F64, bias: Any) -> Value:
    growing.weights[f"{node.name}.weight"] = weight
    growing.weights[f"{node.name}.gain"] = np.ones(node.outputs)
    growing.weights[f"{node.name}.bias"] = np.zeros(node.outputs) if bias is None else _numbers(call, bias)
    return _grown(growing, call, node)


def _batch_norm(growing: Growing, call: Call) -> Value:
    """``(y - mean) / sqrt(variance + eps) · weight + bias`` becomes gain and bias of the product that made y."""
    x, weight, bias, mean, variance, _, eps = call.arguments
    value = _value(growing, call, x)
    node = growing.nodes.get(value.node)
    if node is None or not node.multiplies or node.relu or not value.alone:
        raise Refused(f"{call.words} does not follow a conv2d or linear of its own.",
                      hint="batch norm is folded into the product before it")  # fmt: skip
    factor = 1 / np.sqrt(_numbers(call, variance) + eps)
    if weight is not None:
        factor = factor * _numbers(call, weight)
    gain, added = growing.weights[f"{node.name}.gain"], growing.weights[f"{node.name}.bias"]
    shift = 0 if bias is None else _numbers(call, bias)
    growing.weights[f"{node.name}.gain"] = gain * factor
    growing.weights[f"{node.name}.bias"] = (added - _numbers(call, mean)) * factor + shift
    return replace(value, alone=call.users == 1)


def _relu(growing: Growing, call: Call) -> Value:
    """Part of the operation before it; behind a max_pool, which commutes with it, of the one before that."""
    value = _value(growing, call, call.arguments[0])
    node = growing.nodes.get(value.node)
    while node is not None and node.kind == "max_pool":  # read by nothing else, where the value is alone
        node = growing.nodes.get(node.inputs[0])
    if node is None or node.kind == "avg_pool":
        raise Refused(f"{call.words} follows no conv2d, linear or add.", hint=_HINT)
    if not node.relu:
        if not value.alone:
            raise Refused(f"{call.words} changes what other operations read unchanged.", hint="give each its own")
        growing.nodes[node.name] = replace(node, relu=True)
    return replace(value, alone=call.users == 1)


def _max_pool(growing: Growing, call: Call) -> Value:
    x, kernel, stride, padding, dilation, ceil = call.arguments
    if _one(call, "dilation", dilation) != 1:
        raise Refused(f"{call.words} has a dilation.", hint=_HINT)
    return _pool(growing, call, "max_pool", x, kernel, stride, padding, ceil)


def _avg_pool(growing: Growing, call: Call) -> Value:
    x, kernel, stride, padding, ceil, _, divisor = call.arguments
    if divisor is not None:
        raise Refused(f"{call.words} has a divisor of its own.", hint="leave it out")
    return _pool(growing, call, "avg_pool", x, kernel, stride, padding, ceil)


def _pool(growing: Growing, call: Call, kind: Any, x: Any, kernel: Any, stride: Any, padding: Any, ceil: bool) -> Value:
    value = _picture(growing, call, x)
    size, step = _one(call, "kernel", kernel), _one(call, "stride", stride or kernel)
    if _one(call, "padding", padding):
        raise Refused(f"{call.words} pads.", hint="pools have no padding here")
    if ceil and ((value.image.height - size) % step or (value.image.width - size) % step):
        raise Refused(f"{call.words} rounds the size up.", hint="leave ceil_mode out")
    node = Node(_name(growing, call), kind, (value.node,), kernel=size, stride=step)
    made = _grown(growing, call, node)
    return replace(made, alone=made.alone and value.alone)


def _adaptive(growing: Growing, call: Call) -> Value:
    """Windows that are all alike; then it is an average like others."""
    value, size = _picture(growing, call, call.arguments[0]), call.arguments[1]
    high, wide = (size, size) if isinstance(size, int) else size
    kernels = {value.image.height / (high or value.image.height), value.image.width / (wide or value.image.width)}
    return _average(growing, call, value, kernels)


def _mean(growing: Growing, call: Call) -> Value:
    """Over rows and columns: all points of the picture."""
    value, axes = _picture(growing, call, call.arguments[0]), call.arguments[1]
    if axes is None or {axis % 4 for axis in axes} != {2, 3}:
        raise Refused(f"{call.words} is no mean over the picture.", hint="mean over rows and columns")
    made = _average(growing, call, value, {float(value.image.height), float(value.image.width)})
    return replace(made, flat=len(call.shape) == 2)  # 1 × 1: the order is the same


def _average(growing: Growing, call: Call, value: Value, kernels: set[float]) -> Value:
    if len(kernels) != 1 or not (kernel := kernels.pop()).is_integer():
        raise Refused(f"{call.words} averages windows that are no squares of one size.", hint="use square pictures")
    if kernel == 1:
        return replace(value, alone=value.alone and call.users == 1)
    node = Node(_name(growing, call), "avg_pool", (value.node,), kernel=int(kernel), stride=int(kernel))
    return _grown(growing, call, node)


def _add(growing: Growing, call: Call) -> Value:
    first, second = (_value(growing, call, argument) for argument in call.arguments[:2])
    if call.arguments[2] != 1 or (first.image, first.flat) != (second.image, second.flat):
        raise Refused(f"{call.words} adds tensors of two shapes, or not one to one.", hint="both must be alike")
    node = Node(_name(growing, call), "add", (first.node, second.node))
    return _grown(growing, call, node, first.image)


def _flatten(growing: Growing, call: Call) -> Value:
    """Any view that keeps the pictures apart and makes each of them a vector, or leaves it what it is."""
    value = _value(growing, call, call.arguments[0])
    image = value.image
    picture = (image.channels, image.height, image.width)
    if call.shape[1:] not in ((image.size,), picture):
        raise Refused(
            f"{call.words} makes {call.shape} of pictures of {picture}.", hint="flatten all but the first axis"
        )
    return replace(value, flat=len(call.shape) == 2, alone=value.alone and call.users == 1)


def _same(growing: Growing, call: Call) -> Value:
    value = _value(growing, call, call.arguments[0])
    return replace(value, alone=value.alone and call.users == 1)


def _first(growing: Growing, call: Call) -> Value:
    """``getitem``: the first of what batch norm makes."""
    if call.arguments[1] != 0:
        raise Refused(f"{call.words} reads more than one result.", hint=_HINT)
    return _same(growing, call)


#: In what torch.export has made functional: a flatten is a view there, and a dropout of eval mode a clone.
_OPERATIONS: Mapping[str, Callable[[Growing, Call], Value]] = {
    "conv2d": _conv2d, "conv2d_padding": _conv2d, "linear": _linear,
    "_native_batch_norm_legit_no_training": _batch_norm, "getitem": _first, "relu": _relu, "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool, "adaptive_avg_pool2d": _adaptive, "mean": _mean, "add": _add, "view": _flatten,
    "_unsafe_view": _flatten, "squeeze": _flatten, "clone": _same,
}  # fmt: skip


def _grown(growing: Growing, call: Call, node: Node, image: Image | None = None) -> Value:
    """An operation of the Net more; without an ``image`` what comes out has the shape that torch's has."""
    growing.nodes[node.name] = node
    sides = call.shape[1:]
    made = image or (Image(1, 1, sides[0]) if len(sides) == 1 else Image(sides[1], sides[2], sides[0]))
    return Value(node.name, made, len(sides) == 1, call.users == 1)


def _value(growing: Growing, call: Call, argument: Any) -> Value:
    if not isinstance(argument, Made):
        raise Refused(f"{call.words} reads a constant where a picture should come.", hint=_HINT)
    return growing.values[argument.name]


def _picture(growing: Growing, call: Call, argument: Any) -> Value:
    value = _value(growing, call, argument)
    if value.flat:
        raise Refused(f"{call.words} reads vectors, not pictures.", hint="put it before the flatten")
    return value


def _numbers(call: Call, argument: Any) -> F64:
    if not isinstance(argument, np.ndarray):
        raise Refused(f"{call.words} has weights that are computed.", hint="fold the computation into the weights")
    return argument


def _one(call: Call, what: str, sides: Any) -> int:
    """A side that is the same down and across."""
    found = {sides} if isinstance(sides, int) else set(sides)
    if len(found) != 1:
        raise Refused(f"{call.words} has a {what} of {tuple(sides)}.", hint="both sides must be alike")
    return int(found.pop())


def _name(growing: Growing, call: Call) -> str:
    """That of the submodule, without dots; of an operation between submodules its own."""
    wanted = call.place.replace(".", "_") or call.name
    if wanted in growing.nodes or wanted == INPUT:
        wanted = f"{wanted}_{call.name}"
    return wanted
