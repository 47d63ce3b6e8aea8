"""A Net and its tensors → an IntegerProgram: float64 arithmetic of stored numbers, in one order, the same bits always.

A code ``c`` of the activations that NAME makes is worth ``c · step``. So a product's sum is worth
``gain · scale of the row · step in`` each, which over ``step out`` is the factor that makes it codes.
"""

from __future__ import annotations

import numpy as np

from scrimp.errors import Refused
from scrimp.integer import program as programs
from scrimp.integer import requantize
from scrimp.integer.at_rest import Tensors
from scrimp.integer.program import HIGH, INT32_HIGH, LOW, Add, AvgPool, IntegerProgram, MaxPool, Op, Product
from scrimp.integer.weights import F64, integers
from scrimp.models.cnn import INPUT, Image, Net, Node, is_step
from scrimp.tensors import QTensor


def lower(net: Net, tensors: Tensors) -> IntegerProgram:
    """The network in integers, of which ``program.check`` holds. Refused, by name, where a tensor does not lower."""
    shapes = net.shapes()
    numbers = {name: index for index, name in enumerate(shapes)}
    if not is_step(net.pixels.step):
        raise Refused(f"The step of the pixels is {net.pixels.step:.3g}.",
                      hint="it must be a positive number, neither tiny nor huge")  # fmt: skip
    steps = {INPUT: float(net.pixels.step)}
    ops: list[Op] = []
    for node in net.nodes:
        last = node is net.nodes[-1]
        if node.kind == "max_pool":
            steps[node.name] = steps[node.inputs[0]]
        elif not last:
            steps[node.name] = _step(tensors, node.name)
        places = tuple(numbers[name] for name in node.inputs)
        scales = tuple(steps[name] for name in node.inputs)
        if node.multiplies:
            out = None if last else steps[node.name]
            ops.append(_product(node, tensors, shapes[node.inputs[0]], places[0], numbers[node.name], scales[0], out))
        elif node.kind == "add":
            ops.append(_add(node, (places[0], places[1]), numbers[node.name], (scales[0], scales[1]), steps[node.name]))
        else:
            ops.append(_pool(node, places[0], numbers[node.name], scales[0], steps[node.name]))
    program = IntegerProgram(tuple(shapes.values()), net.pixels, tuple(ops))
    programs.check(program)
    return program


def _product(
    node: Node, tensors: Tensors, image: Image, place: int, made: int, step: float, out: float | None
) -> Product:
    """conv2d or linear; without a step of what comes ``out`` it makes the logits."""
    weight, scales, element = integers(f"{node.name}.weight", _matrix(tensors, f"{node.name}.weight"))
    largest = programs.largest_sum(weight)
    if largest > INT32_HIGH:
        raise Refused(f"{node.name} has sums of {largest:,}, which leave 32 bits.",
                      hint="fewer inputs or narrower weights would fit")  # fmt: skip
    factor, bias = _vector(tensors, f"{node.name}.gain") * scales * step, _vector(tensors, f"{node.name}.bias")
    if out is not None:
        low = 0 if node.relu else LOW
        by = requantize.to_codes(node.name, factor / out, bias / out, largest, low, HIGH)
    elif node.relu:
        raise Refused(f"{node.name} makes the logits and has a relu.", hint="logits are what comes before it")
    else:
        by, _ = requantize.to_logits(factor, bias, largest)
    whole = node.kind == "linear"
    kernel = (image.height, image.width) if whole else (node.kernel, node.kernel)
    stride, padding, groups = (1, 0, 1) if whole else (node.stride, node.padding, node.groups)
    return Product(node.name, place, made, weight, element, kernel, stride, padding, groups, by)


def _pool(node: Node, place: int, made: int, step: float, out: float) -> MaxPool | AvgPool:
    if node.kind == "max_pool":
        return MaxPool(node.name, place, made, node.kernel, node.stride)
    points = node.kernel**2
    if points * -LOW > INT32_HIGH:
        raise Refused(f"{node.name} averages {points:,} points, whose sum leaves 32 bits.",
                      hint="pool in two steps")  # fmt: skip
    factor = np.array([step / points / out])
    by = requantize.to_codes(node.name, factor, np.zeros(1), points * -LOW, LOW, HIGH)
    return AvgPool(node.name, place, made, node.kernel, node.stride, by)


def _add(node: Node, places: tuple[int, int], made: int, steps: tuple[float, float], out: float) -> Add:
    """Both multipliers with as many bits as fit: each is off by half, so the sum by at most ``128 / 2^shift`` codes."""
    low = 0 if node.relu else LOW
    for shift in range(31, -1, -1):
        first, second = (round(float(np.ldexp(step / out, shift))) for step in steps)
        half = 1 << shift >> 1
        if (abs(first) + abs(second)) * -LOW + half <= INT32_HIGH:
            return Add(node.name, places, made, (first, second), half, shift, low, HIGH)
    raise Refused(f"{node.name} adds steps of {steps[0]:.3g} and {steps[1]:.3g} to one of {out:.3g}.",
                  hint="its step is far too small")  # fmt: skip


def _matrix(tensors: Tensors, name: str) -> QTensor:
    found = tensors[name]
    assert isinstance(found, QTensor), name
    return found


def _vector(tensors: Tensors, name: str) -> F64:
    found = tensors[name]
    assert not isinstance(found, QTensor), name
    if not np.isfinite(found).all():
        raise Refused(f"{name} holds numbers that are infinite or NaN.", hint="its training diverged")
    return found.astype(np.float64)


def _step(tensors: Tensors, node: str) -> float:
    found = float(_vector(tensors, f"{node}.step")[0])
    if found <= 0:
        raise Refused(f"{node}.step is {found:.3g}.", hint="a step is what code 1 is worth: a positive number")
    return found
