"""The networks a recipe can name, as Nets: small, and made for chips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from scrimp.errors import UsageError
from scrimp.models.cnn import INPUT, Image, Net, Node, Pixels

#: How bytes are read: eight bits around grey for colours, seven above black for ink on nothing.
COLOURS, INK = Pixels(128, 0, 1 / 64), Pixels(0, 1, 1 / 64)


def _pixels(image: Image) -> Pixels:
    return COLOURS if image.channels == 3 else INK


def mlp(image: Image, labels: tuple[str, ...], *, hidden: Sequence[int] = (128, 128, 112)) -> Net:
    """Layers of products, the first over the whole picture."""
    return Net(image, _pixels(image), (*_head(INPUT, hidden, len(labels)),), labels)


def vgg8(
    image: Image,
    labels: tuple[str, ...],
    *,
    channels: Sequence[int] = (32, 64, 128, 256),
    hidden: Sequence[int] = (256, 128),
) -> Net:
    """For every number of channels two 3 × 3 convolutions and a 2 × 2 max-pool, then linear layers.

    Source: Simonyan and Zisserman 2015, arXiv:1409.1556, scaled down.
    """
    nodes: list[Node] = []
    before = INPUT
    for at, count in enumerate(channels, 1):
        for half in "ab":
            nodes.append(Node(f"conv{at}{half}", "conv2d", (before,), count, kernel=3, padding=1, relu=True))
            before = nodes[-1].name
        nodes.append(Node(f"pool{at}", "max_pool", (before,), kernel=2, stride=2))
        before = nodes[-1].name
    return Net(image, _pixels(image), (*nodes, *_head(before, hidden, len(labels))), labels)


def resnet8(image: Image, labels: tuple[str, ...], *, channels: Sequence[int] = (16, 32, 64)) -> Net:
    """A convolution, one residual block per number of channels (all but the first halve the sides), a mean, a product.

    Source: the image classification network of MLPerf Tiny (Banbury et al. 2021, arXiv:2106.07597), with padding of one
    on all sides where that pads below and right only.
    """
    nodes = [Node("conv0", "conv2d", (INPUT,), channels[0], kernel=3, padding=1, relu=True)]
    for at, count in enumerate(channels, 1):
        before, stride = nodes[-1].name, 1 if at == 1 else 2
        nodes += [
            Node(f"conv{at}a", "conv2d", (before,), count, kernel=3, stride=stride, padding=1, relu=True),
            Node(f"conv{at}b", "conv2d", (f"conv{at}a",), count, kernel=3, padding=1),
        ]
        if at > 1:
            nodes.append(Node(f"short{at}", "conv2d", (before,), count, stride=stride))
            before = nodes[-1].name
        nodes.append(Node(f"add{at}", "add", (f"conv{at}b", before), relu=True))
    side = min(image.height, image.width)
    for _ in channels[1:]:
        side = -(-side // 2)
    nodes.append(Node("mean", "avg_pool", (nodes[-1].name,), kernel=side, stride=side))
    return Net(image, _pixels(image), (*nodes, *_head("mean", (), len(labels))), labels)


def depthwise(
    image: Image, labels: tuple[str, ...], *, channels: Sequence[int] = (64,), hidden: Sequence[int] = (96, 64)
) -> Net:
    """Every channel a chain of its own, 3 × 3 without padding, so that a chip can run them one by one; then products.

    A chip keeps one chain's few hundred bytes at a time, and the last pool's outputs of all.
    """
    count = channels[0]
    nodes = [
        Node("conv1", "conv2d", (INPUT,), count, kernel=3, relu=True),
        Node("conv2", "conv2d", ("conv1",), count, kernel=3, groups=count, relu=True),
        Node("pool2", "max_pool", ("conv2",), kernel=2, stride=2),
        Node("conv3", "conv2d", ("pool2",), count, kernel=3, groups=count, relu=True),
        Node("pool3", "max_pool", ("conv3",), kernel=2, stride=2),
    ]
    return Net(image, _pixels(image), (*nodes, *_head("pool3", hidden, len(labels))), labels)


def patches(
    image: Image,
    labels: tuple[str, ...],
    *,
    channels: Sequence[int] = (32,),
    kernels: Sequence[int] = (6,),
    strides: Sequence[int] = (3,),
    hidden: Sequence[int] = (64,),
) -> Net:
    """Convolutions with strides and without padding or pools, then linear layers: few points, many channels at each.

    Tables of partial sums are shared by all channels of a point, so that on a chip few wide points are the cheapest.
    """
    if not len(channels) == len(kernels) == len(strides):
        raise UsageError(f"patches has {len(channels)} channels, {len(kernels)} kernels and {len(strides)} strides.",
                         hint="one of each per convolution")  # fmt: skip
    nodes: list[Node] = []
    before = INPUT
    for at, (count, kernel, stride) in enumerate(zip(channels, kernels, strides, strict=True), 1):
        nodes.append(Node(f"conv{at}", "conv2d", (before,), count, kernel=kernel, stride=stride, relu=True))
        before = nodes[-1].name
    return Net(image, _pixels(image), (*nodes, *_head(before, hidden, len(labels))), labels)


def _head(before: str, hidden: Sequence[int], classes: int) -> list[Node]:
    nodes = []
    for at, count in enumerate(hidden, 1):
        nodes.append(Node(f"fc{at}", "linear", (before,), count, relu=True))
        before = nodes[-1].name
    return [*nodes, Node("out", "linear", (before,), classes)]


NETS: Mapping[str, Callable[..., Net]] = MappingProxyType(
    {"mlp": mlp, "vgg8": vgg8, "resnet8": resnet8, "depthwise": depthwise, "patches": patches}
)
#: What each can be told besides.
OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "mlp": ("hidden",),
        "vgg8": ("channels", "hidden"),
        "resnet8": ("channels",),
        "depthwise": ("channels", "hidden"),
        "patches": ("channels", "kernels", "strides", "hidden"),
    }
)


def build(name: str, image: Image, labels: tuple[str, ...], sizes: Mapping[str, Sequence[int]]) -> Net:
    """A network by name. UsageError where it can't be told so, Refused where the picture is too small for it."""
    for option in sizes:
        if option not in OPTIONS[name]:
            raise UsageError(f"{name} has no {option:.40}.", hint=f"it takes {', '.join(OPTIONS[name])}")
    if name == "depthwise" and len(sizes.get("channels", (1,))) != 1:
        raise UsageError("depthwise has one number of channels.", hint="channels = [64]")
    if name == "resnet8" and not sizes.get("channels", (1,)):
        raise UsageError("resnet8 begins with a convolution, so it has channels.", hint="channels = [16, 32, 64]")
    net = NETS[name](image, labels, **sizes)
    net.shapes()
    return net
