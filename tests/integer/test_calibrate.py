"""Integers of a float network without training: every step is the best of those tried, and the answers stay."""

import nets
import numpy as np
import pytest

from scrimp.errors import Refused
from scrimp.integer import calibrate, reference
from scrimp.integer.calibrate import quantized
from scrimp.integer.engine import IntegerEngine
from scrimp.integer.lower import lower
from scrimp.models.cnn import Image, Net, Node
from scrimp.tensors import QTensor

torch = pytest.importorskip("torch")


def floats_of(net, seed=0):
    rng, found = np.random.default_rng(seed), {}
    for name, shape in net.tensors().items():
        if name.endswith(".weight"):
            found[name] = (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
        elif not name.endswith(".step"):
            found[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return found


def in_torch(net, weights, pictures):
    """The float network by torch's own operations: name → activations, channels last."""
    images = reference.from_bytes(pictures, net.pixels).astype(np.float32) * np.float32(net.pixels.step)
    made, shapes = {"input": torch.from_numpy(images).permute(0, 3, 1, 2)}, net.shapes()
    for node in net.nodes:
        x = made[node.inputs[0]]
        if node.kind == "add":
            y = x + made[node.inputs[1]]
        elif node.multiplies:
            image = shapes[node.inputs[0]]
            kernel = (image.height, image.width) if node.kind == "linear" else (node.kernel, node.kernel)
            w = torch.from_numpy(weights[f"{node.name}.weight"].reshape(node.outputs, *kernel, -1)).permute(0, 3, 1, 2)
            y = torch.nn.functional.conv2d(x, w, None, node.stride, node.padding, 1, node.groups)
            gain, bias = (torch.from_numpy(weights[f"{node.name}.{k}"])[:, None, None] for k in ("gain", "bias"))
            y = y * gain + bias
        else:
            pool = torch.nn.functional.max_pool2d if node.kind == "max_pool" else torch.nn.functional.avg_pool2d
            y = pool(x, node.kernel, node.stride)
        made[node.name] = y.relu() if node.relu else y
    return {name: y.permute(0, 2, 3, 1).numpy() for name, y in made.items()}


def test_each_step_loses_least_of_all_that_were_tried():
    net, weights = nets.RESIDUAL, floats_of(nets.RESIDUAL)
    pictures = nets.pictures_for(net, 70)
    tensors = quantized(net, weights, pictures, "int4:row")
    assert list(tensors) == list(net.tensors())
    plain = {name: t.dequantize() if isinstance(t, QTensor) else t for name, t in tensors.items()}
    seen = in_torch(net, plain, pictures)
    for name in (name for name in tensors if name.endswith(".step")):
        x = seen[name.removesuffix(".step")].astype(np.float64)
        steps = abs(x).max() * calibrate._SHARES / 127
        lost = [np.square(np.clip(np.rint(x / step), -128, 127) * step - x).sum() for step in steps]
        chosen = int(np.argmin(abs(steps - tensors[name][0])))
        assert tensors[name][0] == pytest.approx(steps[chosen], rel=1e-5)
        assert lost[chosen] <= min(lost) * (1 + 1e-3)  # float32 and float64 may see a tie differently


def test_what_comes_out_runs_in_integers():
    """Eight bits keep most answers of the float network; a wrong step or order of weights would leave one in seven."""
    net, weights = nets.RESIDUAL, floats_of(nets.RESIDUAL)
    weights["l.bias"] -= in_torch(net, weights, nets.pictures_for(net, 200))["l"].mean(axis=(0, 1, 2))
    pictures = nets.pictures_for(net, 200, seed=1)
    logits = IntegerEngine(lower(net, quantized(net, weights, pictures[:50])), threads=1).logits(pictures)
    same = logits.argmax(axis=1) == in_torch(net, weights, pictures)["l"].reshape(200, -1).argmax(axis=1)
    assert same.mean() > 0.5


def test_activations_that_are_always_zero_are_refused():
    net = Net(Image(2, 2, 1), nets.GREY, (Node("a", "linear", ("input",), outputs=2, relu=True),
                                          Node("l", "linear", ("a",), outputs=2)))  # fmt: skip
    weights = floats_of(net) | {"a.bias": np.full(2, -99, np.float32)}
    with pytest.raises(Refused, match="a makes nothing but 0"):
        quantized(net, weights, nets.pictures_for(net, 8))
