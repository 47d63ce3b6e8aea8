"""Pictures per second of VGG8 in integers, beside torch's float32 of the same shapes on the same threads.

    python bench/pictures_beside_torch.py [--threads 1] [--pictures 512] [--repeat 5]

Prints a table and one line of JSON. Weights are random: no speed depends on them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from scrimp.integer.engine import IntegerEngine
from scrimp.integer.lower import lower
from scrimp.models.cnn import Image, Net, Node, Pixels
from scrimp.tensors import encode

CHANNELS = (32, 32, 64, 64, 128, 128, 256, 256)
HIDDEN = (256, 128)


def vgg8() -> Net:
    nodes, last = [], "input"
    for index, channels in enumerate(CHANNELS):
        nodes.append(Node(f"conv{index}", "conv2d", (last,), outputs=channels, kernel=3, padding=1, relu=True))
        last = f"conv{index}"
        if index % 2:
            nodes.append(Node(f"pool{index}", "max_pool", (last,), kernel=2, stride=2))
            last = f"pool{index}"
    for index, size in enumerate((*HIDDEN, 10)):
        nodes.append(Node(f"fc{index}", "linear", (last,), outputs=size, relu=index < len(HIDDEN)))
        last = f"fc{index}"
    return Net(Image(32, 32, 3), Pixels(128, 0, 1 / 128), tuple(nodes))


def in_integers(net: Net, threads: int) -> IntegerEngine:
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in net.tensors().items():
        if len(shape) == 2:
            tensors[name] = encode(
                rng.standard_normal(shape).astype(np.float32) / np.float32(shape[1] ** 0.5), "ternary"
            )
        else:
            tensors[name] = np.full(shape, {"gain": 1, "bias": 0, "step": 0.02}[name.split(".")[1]], np.float32)
    return IntegerEngine(lower(net, tensors), threads=threads)


def in_float32() -> torch.nn.Module:
    """Batch norm is folded, as it is in the integers."""
    layers: list[torch.nn.Module] = []
    before = 3
    for index, channels in enumerate(CHANNELS):
        layers += [torch.nn.Conv2d(before, channels, 3, padding=1), torch.nn.ReLU()]
        before = channels
        if index % 2:
            layers.append(torch.nn.MaxPool2d(2))
    layers.append(torch.nn.Flatten())
    sizes = (4 * CHANNELS[-1], *HIDDEN, 10)
    for index in range(len(sizes) - 1):
        layers += [torch.nn.Linear(sizes[index], sizes[index + 1]), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1]).eval().to(memory_format=torch.channels_last)


def rate(run: Callable[[], object], pictures: int, repeat: int) -> float:
    """Median pictures per second after one run that warms up."""
    seconds = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return pictures / median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 1), ("pictures", 512), ("repeat", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    net = vgg8()
    engine, module = in_integers(net, asked.threads), in_float32()
    pictures = np.random.default_rng(1).integers(0, 256, (asked.pictures, 32, 32, 3)).astype(np.uint8)
    floats = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 128 - 1).contiguous(
        memory_format=torch.channels_last
    )
    found = {"scrimp int8": rate(lambda: engine.logits(pictures), asked.pictures, asked.repeat)}
    with torch.inference_mode():
        for batch in (32, asked.pictures):
            found[f"torch float32, batches of {batch}"] = rate(
                lambda size=batch: [module(part) for part in floats.split(size)], asked.pictures, asked.repeat
            )
    for name, value in found.items():
        print(f"{name:<32}{value:>10,.0f} pictures/s")
    shapes = net.shapes()
    macs = sum(shapes[node.name].height * shapes[node.name].width * np.prod(net.tensors()[f"{node.name}.weight"])
               for node in net.nodes if node.multiplies)  # fmt: skip
    print(json.dumps({"net": "vgg8", "isa": engine.isa, "threads": asked.threads, "pictures": asked.pictures,
                      "macs": int(macs), "pictures_per_s": found}))  # fmt: skip


if __name__ == "__main__":
    main()
