"""Networks that look at pictures: a config → a Net, the operations by name, and what each of them stores.

A Net is what training writes and everything else reads. Pictures and activations lie in memory as ``(height, width,
channels)``; a ``linear`` reads all of a picture in this order.

What is stored of an operation called NAME (docs/notes/010-from-pytorch-to-a-chip.md)::

    NAME.weight  (N, K) QTensor   conv2d, linear: K = kernel · kernel · channels / groups, in the order (row, column,
                                  channel)
    NAME.gain    (N,)             … what the product is multiplied with: the folded batch norm; 1 where there is none
    NAME.bias    (N,)             … and what is added to it then
    NAME.step    (1,)             conv2d, linear, avg_pool, add, but not the last operation: the value of code 1 of the
                                  int8 activations that come out
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from scrimp.errors import Refused
from scrimp.models import PICTURES

Kind = Literal["conv2d", "linear", "max_pool", "avg_pool", "add"]
#: What goes in; the name is taken.
INPUT = "input"
#: No side of a picture, no count of channels and no kernel is larger.
LARGEST = 1 << 16
#: Nor does any activation or weight have more numbers.
MOST = 1 << 28
#: Nor has any network more operations.
MOST_NODES = 1024
#: Of names of operations and classes, at most.
NAME_CHARS = 100
#: No step of pixels is smaller; none is larger than 1 over it.
LEAST_STEP = 1e-30


@dataclass(frozen=True, slots=True)
class Image:
    """The shape of an activation; a vector is an image of one point."""

    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        return self.height * self.width * self.channels


@dataclass(frozen=True, slots=True)
class Pixels:
    """How a byte of the picture becomes an int8 number: ``(byte - zero) >> shift``, worth ``step`` each.

    ``zero`` 128 and ``shift`` 0 keep all eight bits, and padding is grey; ``zero`` 0 and ``shift`` 1 make black 0.
    """

    zero: int
    shift: int
    step: float


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. ``linear`` uses ``outputs`` only; pools have neither ``outputs`` nor padding; ``add`` reads two.

    ``relu`` follows conv2d, linear and add.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    outputs: int = 0  #: channels that come out of conv2d and linear
    kernel: int = 1
    stride: int = 1
    padding: int = 0  #: points of value 0 on each of the four sides
    groups: int = 1
    relu: bool = False

    @property
    def multiplies(self) -> bool:
        return self.kind in ("conv2d", "linear")


@dataclass(frozen=True, slots=True)
class Net:
    """Operations in the order they run; the last makes the logits."""

    image: Image
    pixels: Pixels
    nodes: tuple[Node, ...]
    labels: tuple[str, ...] = ()  #: of the classes, where they have names

    def shapes(self) -> dict[str, Image]:
        """Of :data:`INPUT` and of what every operation makes. Refused, with its name, where one can't be."""
        found = {INPUT: self.image}
        if len(self.nodes) > MOST_NODES:
            raise Refused(f"The network has {len(self.nodes):,} operations.", hint=f"{MOST_NODES:,} are possible")
        for node in self.nodes:
            if node.name in found or not is_name(node.name) or "." in node.name:
                raise Refused(f"The operation '{node.name[:80]}' needs a name of its own, without dots.",
                              hint=f"1 … {NAME_CHARS} letters that can be printed")  # fmt: skip
            unknown = [name for name in node.inputs if name not in found]
            if unknown or len(node.inputs) != (2 if node.kind == "add" else 1):
                raise Refused(f"{node.name} ({node.kind}) reads {', '.join(node.inputs) or 'nothing'}.",
                              hint="operations read what earlier ones made: add two, the others one")  # fmt: skip
            found[node.name] = _shape(node, [found[name] for name in node.inputs])
        if not self.nodes or not self.nodes[-1].multiplies:
            raise Refused("The last operation of a network makes the logits, so it must be a linear or conv2d.",
                          hint="what comes behind it changes no class: leave it out")  # fmt: skip
        return found

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of all that is stored, in order."""
        shapes, found = self.shapes(), dict[str, tuple[int, ...]]()
        for node in self.nodes:
            if node.multiplies:
                found[f"{node.name}.weight"] = node.outputs, weight_inputs(node, shapes[node.inputs[0]])
                found[f"{node.name}.gain"] = found[f"{node.name}.bias"] = (node.outputs,)
            if node.kind != "max_pool" and node is not self.nodes[-1]:
                found[f"{node.name}.step"] = (1,)
        return found


def weight_inputs(node: Node, image: Image) -> int:
    """K of a product's weight ``(N, K)``."""
    if node.kind == "linear":
        return image.size
    return node.kernel * node.kernel * image.channels // node.groups


def _shape(node: Node, inputs: Sequence[Image]) -> Image:
    numbers = (node.kernel, node.stride, node.groups, node.outputs if node.multiplies else 1)
    if not all(1 <= n <= LARGEST for n in numbers) or not 0 <= node.padding < node.kernel:
        raise Refused(f"{node.name} ({node.kind}) has a kernel of {node.kernel}, a stride of {node.stride}, padding "
                      f"{node.padding}, {node.groups} groups and {node.outputs} outputs.",
                      hint=f"all are 1 … {LARGEST:,}, and padding is less than the kernel")  # fmt: skip
    image = inputs[0]
    if node.kind == "add":
        if inputs[1] != image:
            raise Refused(f"{node.name} adds {image} and {inputs[1]}.", hint="both must have the same shape")
        return image
    if node.kind == "linear":
        return _bounded(node, Image(1, 1, node.outputs), image.size)
    if node.kind != "conv2d" and (node.padding or node.groups != 1):
        raise Refused(f"{node.name} ({node.kind}) has padding or groups.", hint="pools have neither here")
    height, width = ((side + 2 * node.padding - node.kernel) // node.stride + 1 for side in (image.height, image.width))
    if min(height, width) < 1:
        raise Refused(f"{node.name} ({node.kind}) has a kernel of {node.kernel} on a picture of "
                      f"{image.height} × {image.width}.", hint="it must fit into the padded picture")  # fmt: skip
    if node.kind != "conv2d":
        return Image(height, width, image.channels)
    if image.channels % node.groups or node.outputs % node.groups:
        raise Refused(f"{node.name} has {node.groups} groups of {image.channels} inputs and {node.outputs} outputs.",
                      hint="both must be multiples of the groups")  # fmt: skip
    return _bounded(node, Image(height, width, node.outputs), weight_inputs(node, image))


def _bounded(node: Node, made: Image, inputs: int) -> Image:
    if made.size > MOST or node.outputs * inputs > MOST:
        raise Refused(f"{node.name} has {node.outputs:,} × {inputs:,} weights and makes {made.size:,} numbers.",
                      hint=f"neither may be more than {MOST:,}")  # fmt: skip
    return made


def to_config(net: Net) -> dict[str, Any]:
    """What ``config.json`` says of it."""
    plain = asdict(Node("", "conv2d", ()))
    nodes = [{key: value for key, value in asdict(node).items() if value != plain[key]} | {"kind": node.kind}
             for node in net.nodes]  # fmt: skip
    return {"model_type": PICTURES, "image": asdict(net.image), "pixels": asdict(net.pixels), "nodes": nodes,
            "labels": list(net.labels)}  # fmt: skip


def parse(config: Mapping[str, Any]) -> Net:
    """The inverse of :func:`to_config`, of a config that may be anything. Refused where it is no network."""
    try:
        net = Net(
            Image(**_integers(config["image"])),
            Pixels(_integer(config["pixels"]["zero"]), _integer(config["pixels"]["shift"]),
                   _number(config["pixels"]["step"])),
            tuple(map(_node, config["nodes"])),
            tuple(map(str, config.get("labels", ()))),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Refused(f"config.json describes no network of pictures: {type(error).__name__} {error!s:.200}.",
                      hint="the file may be damaged") from None  # fmt: skip
    sides = (net.image.height, net.image.width, net.image.channels)
    if not all(1 <= side <= LARGEST for side in sides) or net.image.size > MOST:
        raise Refused(f"config.json: a picture of {' × '.join(map(str, sides))}.",
                      hint=f"sides are 1 … {LARGEST:,}, numbers at most {MOST:,}")  # fmt: skip
    if not (0 <= net.pixels.zero <= 128 and 0 <= net.pixels.shift <= 7 and is_step(net.pixels.step)):
        raise Refused(f"config.json: pixels of {net.pixels!s:.200}.",
                      hint="zero 0 … 128, shift 0 … 7, a positive step")  # fmt: skip
    if (255 - net.pixels.zero) >> net.pixels.shift > 127:
        raise Refused(f"config.json: pixels of {net.pixels} don't fit into eight bits with a sign.",
                      hint="zero 128, or a shift of 1")  # fmt: skip
    classes = net.shapes()[net.nodes[-1].name].size
    if net.labels and (len(net.labels) != classes or not all(map(is_name, net.labels))):
        raise Refused(f"config.json: {len(net.labels):,} labels for {classes:,} logits.",
                      hint=f"one each, of 1 … {NAME_CHARS} letters that can be printed")  # fmt: skip
    return net


def _node(document: Mapping[str, Any]) -> Node:
    kind = document["kind"]
    if kind not in get_args(Kind):
        raise ValueError(f"the operation '{kind}' is unknown")
    numbers = {key: document[key] for key in ("outputs", "kernel", "stride", "padding", "groups") if key in document}
    return Node(str(document["name"]), kind, tuple(map(str, document["inputs"])), **_integers(numbers),
                relu=bool(document.get("relu", False)))  # fmt: skip


def is_name(text: str) -> bool:
    """Names of strangers are printed, and become names in C."""
    return 1 <= len(text) <= NAME_CHARS and text.isprintable()


def is_step(step: float) -> bool:
    """Whether products of it with any float32 stay far within float64."""
    return LEAST_STEP <= step <= 1 / LEAST_STEP


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)


def _integers(document: Mapping[str, Any]) -> dict[str, int]:
    return {str(key): _integer(value) for key, value in document.items()}


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is no integer")
    return value
