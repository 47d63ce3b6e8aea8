"""Networks of pictures as scrimp directories: written, reopened, inspected, and refused by all verbs of text."""

import json

import numpy as np
import pytest

from scrimp.cli.main import main
from scrimp.errors import Refused, UsageError
from scrimp.models.cnn import Image, Net, Node, Pixels
from scrimp.sources import open_source
from scrimp.store import verify
from scrimp.store.net import open_net, write_net
from scrimp.tensors import QTensor, encode

NET = Net(
    Image(8, 6, 3),
    Pixels(128, 0, 1 / 128),
    (
        Node("a", "conv2d", ("input",), outputs=20, kernel=3, padding=1, relu=True),
        Node("m", "max_pool", ("a",), kernel=2, stride=2),
        Node("l", "linear", ("m",), outputs=10),
    ),
    tuple("0123456789"),
)


def made(net=NET, formats=("ternary:row", "int4:row@f32")):
    rng = np.random.default_rng(0)
    found, left = {}, list(formats)
    for name, shape in net.tensors().items():
        values = rng.standard_normal(shape).astype(np.float32)
        found[name] = encode(values, left.pop(0)) if len(shape) == 2 else np.abs(values) + np.float32(0.1)
    return found


@pytest.fixture
def store(tmp_path):
    write_net(tmp_path / "net", NET, made(), provenance={"recipe": "abc"}, notes=["a line"], report={"accuracy": 0.5})
    return tmp_path / "net"


@pytest.mark.parametrize("formats", [("ternary:row", "int4:row@f32"), ("f32", "binary:tensor"), ("kmeans2:row", "f16")])
def test_what_was_written_comes_back(tmp_path, formats):
    tensors = made(formats=formats)
    write_net(tmp_path / "net", NET, tensors)
    net, read = open_net(tmp_path / "net")
    assert net == NET
    assert list(read) == list(tensors)
    for name, tensor in tensors.items():
        back = read[name]
        if isinstance(tensor, QTensor):
            assert isinstance(back, QTensor)
            assert back.format == tensor.format
            for part, values in tensor.parts().items():
                np.testing.assert_array_equal(back.parts()[part], values)
        else:
            np.testing.assert_array_equal(back, tensor)


def test_it_is_a_scrimp_directory(store):
    assert verify(store) > 5
    assert {path.name for path in store.iterdir()} == {"config.json", "model.safetensors", "scrimp.json"}
    document = json.loads((store / "scrimp.json").read_text())
    assert document["source"] == {"recipe": "abc"}
    assert document["plan"] == {"a.weight": "ternary:row@trained", "l.weight": "int4:row@f32@trained"}
    assert (document["notes"], document["report"]) == (["a line"], {"accuracy": 0.5})
    with open_source(store) as source:
        assert (source.kind, source.tokenizer.kind) == ("scrimp", "none")
        assert source.parameters == sum(int(np.prod(shape)) for shape in NET.tensors().values())


def test_it_is_replaced_only_when_complete(store):
    before = (store / "model.safetensors").read_bytes()
    broken = made() | {"a.bias": np.full(20, np.nan, np.float32)}
    with pytest.raises(Refused, match=r"a\.bias"):
        write_net(store, NET, broken)
    assert (store / "model.safetensors").read_bytes() == before
    assert [path.name for path in store.parent.iterdir()] == ["net"]
    write_net(store, NET, made(formats=("int8:row", "int8:row")))
    assert open_net(store)[1]["a.weight"].format.name == "int8:row"
    assert [path.name for path in store.parent.iterdir()] == ["net"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.bias": None}, "a.bias is missing"),
        ({"z.bias": np.zeros(3, np.float32)}, "z.bias belongs to no operation"),
        ({"a.bias": np.zeros(3, np.float32)}, "a.bias has shape"),
        ({"a.bias": np.zeros(20)}, "a.bias holds float64"),
        ({"a.weight": np.zeros((20, 27), np.float32)}, "a.weight has shape"),
    ],
)
def test_other_tensors_than_the_net_s_are_refused_before_anything_is_written(tmp_path, change, words):
    tensors = {name: tensor for name, tensor in (made() | change).items() if tensor is not None}
    with pytest.raises(UsageError, match=words):
        write_net(tmp_path / "net", NET, tensors)
    assert not list(tmp_path.iterdir())


def test_inspect_shows_it(store, capsys):
    assert main(["inspect", str(store), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {tensor["name"] for tensor in document["tensors"]} == NET.tensors().keys()
    assert main(["inspect", str(store)]) == 0
    assert "token" not in capsys.readouterr().out
    assert main(["inspect", str(store), "--tensor", "a.weight"]) == 0


@pytest.mark.parametrize(
    "verb",
    [
        ["run", "NET", "Hello"], ["chat", "NET"], ["eval", "NET"], ["bench", "NET"], ["compare", "NET"],
        ["compress", "NET", "-o", "OUT", "--format", "int4"], ["compress", "NET", "-o", "OUT", "--size", "1MB"],
        ["compress", "NET", "-o", "OUT", "--keep"], ["recover", "NET", "-o", "OUT"],
    ],
)  # fmt: skip
def test_verbs_of_text_say_in_a_line_that_it_is_none(store, tmp_path, capsys, verb):
    places = {"NET": str(store), "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in verb]) == 3
    first, *rest = capsys.readouterr().err.splitlines()
    assert first == "error: This is a network of pictures, which reads and writes no text."
    assert len(rest) == 1
    assert not (tmp_path / "out").exists()


def damaged(store, change):
    document = json.loads((store / "config.json").read_text())
    change(document)
    (store / "config.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["nodes"].pop(1),
        lambda c: c["nodes"][0].update(kernel=5),
        lambda c: c.pop("image"),
        lambda c: c["quantization_config"]["tensors"].pop("a.weight"),
        lambda c: c["quantization_config"]["tensors"]["a.weight"].update(format="int4:row"),
        lambda c: c["quantization_config"].update(activations={"scales": {}}),
    ],
)
def test_a_config_of_another_network_is_refused(store, change, capsys):
    damaged(store, change)
    with pytest.raises(Refused):
        open_net(store)
    assert main(["inspect", str(store)]) == 3
    assert capsys.readouterr().err.startswith("error: ")
