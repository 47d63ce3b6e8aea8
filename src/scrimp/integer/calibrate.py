"""A network that was trained in float, made one of integers without training: weights rounded, steps measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats import Format, parse
from scrimp.integer.at_rest import Tensors
from scrimp.integer.program import HIGH, LOW
from scrimp.integer.reference import U8, from_bytes
from scrimp.models.cnn import INPUT, Net, Node
from scrimp.tensors import QTensor, encode_weight

F32 = NDArray[np.float32]
#: Pictures that are calculated together.
_AT_ONCE = 32
#: Shares of the largest activation that are tried as the end of the range.
_SHARES = np.linspace(0.25, 1, 31)


def quantized(net: Net, weights: Mapping[str, F32], pictures: U8, format: str | Format = "int8:row") -> Tensors:
    """All tensors of ``net``: weights rounded to ``format``, and the step of each activation that loses least.

    ``weights`` has ``NAME.weight (N, K)``, ``NAME.gain`` and ``NAME.bias``, as ``train/from_torch.py: net_of`` gives
    them; ``pictures (n, height, width, channels)`` in bytes are what activations are measured with: some hundreds do.

    Of 31 steps, ends of the range from a quarter of the largest activation to all of it, the one with the least squared
    error is taken; activations are those of the rounded weights in float32. Refused where one is always zero.
    """
    chosen = parse(format) if isinstance(format, str) else format
    found: dict[str, QTensor | F32] = {
        name: encode_weight(values, chosen) if name.endswith(".weight") else values for name, values in weights.items()
    }
    plain = {name: tensor.dequantize() if isinstance(tensor, QTensor) else tensor for name, tensor in found.items()}
    wanted = [name.removesuffix(".step") for name in net.tensors() if name.endswith(".step")]
    largest = dict.fromkeys(wanted, 0.0)
    for made in _walk(net, plain, pictures):
        largest |= {name: max(largest[name], float(np.abs(made[name]).max())) for name in wanted}
    errors = {name: np.zeros(len(_SHARES)) for name in wanted}
    for made in _walk(net, plain, pictures):
        for name in wanted:
            errors[name] += [_lost(made[name], largest[name] * share / HIGH) for share in _SHARES]
    for name in wanted:
        if not 0 < largest[name] < np.inf:
            raise Refused(f"{name} makes nothing but {largest[name]:.3g} of these pictures.",
                          hint="give pictures like those it was trained with")  # fmt: skip
        step = largest[name] * _SHARES[int(errors[name].argmin())] / HIGH
        found[f"{name}.step"] = np.array([step], np.float32)
    return {name: found[name] for name in net.tensors()}


def _lost(x: F32, step: float) -> float:
    """Squared error of ``x`` rounded to codes of this step."""
    if not step:
        return 0.0
    by = np.float32(step)
    return float(np.square(np.clip(np.rint(x / by), LOW, HIGH) * by - x).sum(dtype=np.float64))


def _walk(net: Net, weights: Mapping[str, F32], pictures: U8) -> Iterator[dict[str, F32]]:
    """The activations of some pictures at a time, by the operation that makes them."""
    for at in range(0, len(pictures), _AT_ONCE):
        made = {INPUT: from_bytes(pictures[at : at + _AT_ONCE], net.pixels) * np.float32(net.pixels.step)}
        for node in net.nodes:
            made[node.name] = _run(node, weights, [made[name] for name in node.inputs])
        yield made


def _run(node: Node, weights: Mapping[str, F32], inputs: list[F32]) -> F32:
    x = inputs[0]
    if node.kind == "add":
        made = x + inputs[1]
    elif node.multiplies:
        made = _product(node, weights[f"{node.name}.weight"], x)
        made = made * weights[f"{node.name}.gain"] + weights[f"{node.name}.bias"]
    else:
        seen = _windows(x, node)
        made = seen.max(axis=(3, 4)) if node.kind == "max_pool" else seen.mean(axis=(3, 4))
    return np.maximum(made, np.float32(0)) if node.relu else made


def _product(node: Node, weight: F32, x: F32) -> F32:
    if node.kind == "linear":
        return (x.reshape(len(x), -1) @ weight.T)[:, None, None]
    pad = (node.padding, node.padding)
    seen = _windows(np.pad(x, ((0, 0), pad, pad, (0, 0))), node)
    groups = zip(np.split(seen, node.groups, axis=5), np.split(weight, node.groups), strict=True)
    return np.concatenate([part.reshape(*part.shape[:3], -1) @ w.T for part, w in groups], axis=3)


def _windows(x: F32, node: Node) -> F32:
    """``(n, height, width, channels)`` → ``(n, height', width', rows, columns, channels)``."""
    seen: F32 = np.lib.stride_tricks.sliding_window_view(x, (node.kernel, node.kernel), axis=(1, 2))
    return seen[:, :: node.stride, :: node.stride].transpose(0, 1, 2, 4, 5, 3)
