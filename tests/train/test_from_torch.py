"""A module of torch and the Net made of it: the same numbers, within the roundings of gain and bias to float32."""

import numpy as np
import pytest

from scrimp.errors import Refused
from scrimp.integer.reference import windows
from scrimp.models.cnn import Image, Pixels

torch = pytest.importorskip("torch")
nn, functional = torch.nn, torch.nn.functional

from scrimp.train.from_torch import net_of  # noqa: E402

GREY = Pixels(128, 0, 1 / 128)


def evaluated(net, weights, x):
    """The Net in float64 on ``x (n, height, width, channels)``, plainly."""
    values = {"input": x}
    for node in net.nodes:
        x = values[node.inputs[0]]
        if node.kind == "add":
            made = x + values[node.inputs[1]]
        elif node.kind == "max_pool":
            made = windows(x, (node.kernel, node.kernel), node.stride).max(axis=(3, 4))
        elif node.kind == "avg_pool":
            made = windows(x, (node.kernel, node.kernel), node.stride).mean(axis=(3, 4))
        else:
            weight, gain, bias = (weights[f"{node.name}.{kind}"] for kind in ("weight", "gain", "bias"))
            made = product(node, weight, x) * gain + bias
        values[node.name] = np.maximum(made, 0) if node.relu else made
    return values[net.nodes[-1].name].reshape(len(x), -1)


def product(node, weight, x):
    if node.kind == "linear":
        return (x.reshape(len(x), -1) @ weight.T)[:, None, None]
    pad = (node.padding, node.padding)
    seen = windows(np.pad(x, ((0, 0), pad, pad, (0, 0))), (node.kernel, node.kernel), node.stride)
    groups = zip(np.split(seen, node.groups, axis=5), np.split(weight, node.groups), strict=True)
    return np.concatenate([part.reshape(*part.shape[:3], -1) @ w.T for part, w in groups], axis=3)


def randomized(module):
    """Batch norm as training leaves it, so that folding it wrongly shows."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.3, 3)
            if part.affine:
                nn.init.normal_(part.weight)
                nn.init.normal_(part.bias)
    return module


def check(module, *sides, kinds):
    """The Net computes what the module does in float64, of weights that are float32 in both.

    Each product's gain and bias were rounded once, by at most 2^-24 of what they are; so through all layers the result
    is off by less than 1.01 · products · 2^-24 of the same network with all of its terms made positive.
    """
    randomized(module)
    example = torch.randn(2, *sides)
    net, weights = net_of(module, example, GREY)
    assert [node.kind for node in net.nodes] == kinds
    with torch.no_grad():
        expected = module.double().eval()(example.double()).numpy().reshape(2, -1)
    x = example.double().numpy()
    x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x[:, None, None]
    exact = {name: values.astype(np.float64) for name, values in weights.items()}
    most = evaluated(net, {name: abs(values) for name, values in exact.items()}, abs(x))
    products = sum(node.multiplies for node in net.nodes)
    assert (abs(evaluated(net, exact, x) - expected) <= 1.01 * products * 2.0**-24 * most).all()
    assert all(values.dtype == np.float32 for values in weights.values())
    missing = net.tensors().keys() - weights.keys()
    assert all(name.endswith(".step") for name in missing)
    return net, weights


def test_a_perceptron_of_vectors():
    net, _ = check(nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4, bias=False)), 20,
                   kinds=["linear", "linear"])  # fmt: skip
    assert net.image == Image(1, 1, 20)
    assert [node.name for node in net.nodes] == ["0", "3"]


def test_a_perceptron_of_pictures_is_turned():
    check(nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)), 3, 5, 4,
          kinds=["linear", "linear"])  # fmt: skip


def test_a_vgg():
    def block(before, after):
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]

    module = nn.Sequential(*block(3, 8), *block(8, 8), nn.MaxPool2d(2), *block(8, 12), nn.MaxPool2d(2), nn.Flatten(),
                           nn.Linear(12 * 2 * 3, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 10))  # fmt: skip
    net, weights = check(module, 3, 8, 12, kinds=["conv2d"] * 2 + ["max_pool", "conv2d", "max_pool"] + ["linear"] * 2)
    assert all(node.relu == (node.kind != "max_pool") for node in net.nodes[:-1])
    assert not (weights["0.gain"] == 1).all()


class Residual(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1), nn.BatchNorm2d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, padding="same", bias=False), nn.BatchNorm2d(after))
        self.beside = nn.Conv2d(before, after, 1, stride) if (before, stride) != (after, 1) else nn.Identity()

    def forward(self, x):
        made = self.second(self.first(x))
        made += self.beside(x)
        return functional.relu(made, inplace=True)


@pytest.mark.parametrize("end", [
    lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10)],
    lambda: [nn.AvgPool2d(2), nn.Conv2d(12, 10, 1), nn.Flatten()],
    lambda: [nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(12, 10, 1)],
])  # fmt: skip
def test_a_resnet(end):
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False), nn.ReLU(), Residual(6, 6, 1),
                           Residual(6, 12, 2), Residual(12, 12, 2), *end())  # fmt: skip
    kinds = ["conv2d"] * 3 + ["add"] + ["conv2d"] * 3 + ["add"] + ["conv2d"] * 2
    net, _ = check(module, 3, 7, 8, kinds=[*kinds, "conv2d", "add", "avg_pool", net_end(end)])
    assert [node.relu for node in net.nodes if node.kind == "add"] == [True] * 3
    assert "4_beside" in net.shapes()


def net_end(end):
    return "linear" if any(isinstance(part, nn.Linear) for part in end()) else "conv2d"


def test_a_depthwise_network():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
                           nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 1, groups=4), nn.ReLU(), nn.MaxPool2d(3, 1),
                           nn.ReLU(), nn.Flatten(), nn.Linear(12 * 3 * 4, 5))  # fmt: skip
    net, _ = check(module, 3, 10, 12, kinds=["conv2d"] * 3 + ["max_pool", "linear"])
    assert [node.groups for node in net.nodes if node.kind == "conv2d"] == [1, 8, 4]


class Means(nn.Module):
    """A relu behind a pool; a mean, a reshape and a squeeze between the layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.last, self.out = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = functional.relu(functional.max_pool2d(self.conv(x), 2))
        x = self.last(x).mean((2, 3), keepdim=True)
        return self.out(x.squeeze(3).squeeze(2).reshape(x.shape[0], -1).contiguous())


def test_functions_count_as_modules_do():
    net, _ = check(Means(), 2, 12, 12, kinds=["conv2d", "max_pool", "conv2d", "avg_pool", "linear"])
    assert net.nodes[0].relu
    assert not net.nodes[2].relu


def test_a_module_stays_as_it_was():
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)).train()
    net_of(module, torch.zeros(1, 1, 2, 2), GREY)
    assert module.training


class Both(nn.Module):
    def forward(self, x):
        return x, x


class Shared(nn.Module):
    """A relu whose input something else reads without it."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 4)

    def forward(self, x):
        x = self.conv(x)
        return self.out(torch.relu(x) + x)


class Depends(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


CONV = nn.Conv2d(2, 3, 3)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([CONV, nn.Sequential(nn.Flatten(), nn.Sigmoid())], "sigmoid at 1.1"),
        ([CONV, nn.ReLU6()], "hardtanh at 1"),
        ([nn.Flatten(), nn.Linear(32, 3), nn.Softmax(1)], "softmax at 2"),
        ([nn.BatchNorm2d(2), CONV], "at 0 does not follow a conv2d or linear"),
        ([CONV, nn.ReLU(), nn.BatchNorm2d(3)], "at 2 does not follow a conv2d or linear"),
        ([nn.Conv2d(2, 3, 2, dilation=2)], "conv2d at 0 has a dilation"),
        ([nn.Conv2d(2, 3, (1, 3))], r"conv2d at 0 has a kernel of \(1, 3\)"),
        ([nn.Conv2d(2, 3, 2, padding="same")], "conv2d_padding at 0 pads one side more"),
        ([nn.Conv2d(2, 3, 1, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1)], "0 .conv2d. has"),
        ([nn.Conv2d(2, 3, 3, padding_mode="reflect", padding=1)], "pad at 0"),
        ([nn.ConvTranspose2d(2, 3, 3)], "conv_transpose2d at 0"),
        ([nn.MaxPool2d(2, padding=1), CONV], "max_pool2d at 0 pads"),
        ([nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(2, 3, 2)], "max_pool2d at 0 rounds"),
        ([nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(2, 3, 2)], "avg_pool2d at 0 has a divisor"),
        ([nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)], "relu at 1 follows no"),
        ([nn.ReLU(), CONV], "relu at 0 follows no"),
        ([nn.AdaptiveAvgPool2d(3), CONV], "adaptive_avg_pool2d at 0 averages"),
        ([nn.Linear(4, 4)], "linear at 0 reads pictures"),
        ([CONV], "returns pictures of 2 × 2"),
        ([nn.AdaptiveAvgPool2d(1)], "The last operation of a network"),
        ([nn.Identity()], "returns pictures of 4 × 4"),
        ([Both()], "makes 2 tensors"),
        ([Shared()], "relu at 0 changes what other operations read"),
        ([Depends()], "torch.export can't follow this module"),
        ([nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 4))], "at 0"),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(parts, words):
    with pytest.raises(Refused, match=words):
        net_of(nn.Sequential(*parts), torch.zeros(2, 2, 4, 4), GREY)


def test_examples_of_other_shapes_are_refused():
    with pytest.raises(Refused, match="The example has shape"):
        net_of(nn.Linear(4, 2), torch.zeros(2, 3, 4), GREY)
