"""A Net: shapes, what is stored, and configs that are none."""

import json

import pytest

from scrimp.errors import Refused
from scrimp.models.cnn import Image, Net, Node, Pixels, parse, to_config

NET = Net(
    Image(8, 6, 3),
    Pixels(128, 0, 1 / 128),
    (
        Node("a", "conv2d", ("input",), outputs=4, kernel=3, padding=1, relu=True),
        Node("b", "conv2d", ("a",), outputs=4, kernel=3, padding=1, groups=2),
        Node("s", "add", ("a", "b"), relu=True),
        Node("m", "max_pool", ("s",), kernel=2, stride=2),
        Node("p", "avg_pool", ("m",), kernel=2, stride=2),
        Node("l", "linear", ("p",), outputs=10),
    ),
    tuple("0123456789"),
)


def test_shapes_and_what_is_stored():
    shapes = NET.shapes()
    assert shapes["b"] == Image(8, 6, 4)
    assert shapes["m"] == Image(4, 3, 4)
    assert shapes["p"] == Image(2, 1, 4)
    assert NET.tensors() == {
        "a.weight": (4, 27), "a.gain": (4,), "a.bias": (4,), "a.step": (1,), "b.weight": (4, 18), "b.gain": (4,),
        "b.bias": (4,), "b.step": (1,), "s.step": (1,), "p.step": (1,), "l.weight": (10, 8), "l.gain": (10,),
        "l.bias": (10,),
    }  # fmt: skip


def test_a_config_gives_the_net_back():
    assert parse(json.loads(json.dumps(to_config(NET)))) == NET


def changed(where, value):
    document = json.loads(json.dumps(to_config(NET)))
    place = document
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    return document


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("image", "height"), 0), (("image", "height"), 1 << 40), (("image", "height"), "8"), (("image",), None),
        (("pixels", "zero"), 300), (("pixels", "step"), 0), (("pixels", "zero"), 0), (("pixels", "shift"), True),
        (("nodes",), []), (("nodes",), {}), (("nodes", 0, "kind"), "softmax"), (("nodes", 0, "name"), "input"),
        (("nodes", 0, "name"), "b"), (("nodes", 0, "inputs"), ["s"]), (("nodes", 0, "kernel"), 99),
        (("nodes", 0, "stride"), 0), (("nodes", 0, "padding"), -1), (("nodes", 0, "outputs"), -4),
        (("nodes", 0, "outputs"), 1 << 15 | 1 << 28), (("nodes", 1, "groups"), 3), (("nodes", 2, "inputs"), ["a"]),
        (("nodes", 3, "padding"), 1), (("nodes", 5, "kind"), "max_pool"), (("labels",), ["a"]),
    ],
)  # fmt: skip
def test_a_config_that_is_none_is_refused(where, value):
    with pytest.raises(Refused):
        parse(changed(where, value))
