"""``scrimp eval --pictures`` and ``scrimp.open`` of a network whose answers are known."""

import json
import math

import numpy as np
import pytest

import scrimp
from scrimp.cli.main import main
from scrimp.errors import UsageError
from scrimp.integer.model import PictureModel
from scrimp.models.cnn import Image, Net, Node, Pixels
from scrimp.store.net import write_net
from scrimp.tensors import encode

SIDE, CLASSES = 28, 10
#: 40 pictures, four of which are labelled as another class than they show: three ones as 7, one as 2.
SHOWN = [index % CLASSES for index in range(40)]
LABELS = [7 if index in (1, 11, 21) else 2 if index == 31 else SHOWN[index] for index in range(40)]


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.tobytes()


def pictures():
    """Class k: lines 2k and 2k + 1 are bright."""
    images = np.zeros((len(SHOWN), SIDE, SIDE), np.uint8)
    for image, shown in zip(images, SHOWN, strict=True):
        image[2 * shown : 2 * shown + 2] = 200
    return images


def write(path, net, bright, format="ternary:row"):
    """One product whose row k counts the bright points of class k's lines."""
    weight = np.zeros((CLASSES, SIDE, SIDE), np.float32)
    for k in range(CLASSES):
        weight[k, 2 * k : 2 * k + 2] = bright
    vector = np.ones(CLASSES, np.float32)
    tensors = {"l.weight": encode(weight.reshape(CLASSES, -1), format), "l.gain": vector, "l.bias": 0 * vector}
    write_net(path, net, tensors)
    return path


NET = Net(Image(SIDE, SIDE, 1), Pixels(0, 1, 1 / 127), (Node("l", "linear", ("input",), outputs=CLASSES),))


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "net", NET, 0.5)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(pictures()))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array(LABELS, np.uint8)))
    return tmp_path / "data"


def test_accuracy_error_and_mistakes_are_counted(store, data, capsys):
    assert main(["eval", str(store), "--pictures", "mnist:test", "--data", str(data), "--json", "--threads", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["pictures"], document["n"]) == (str(store), "mnist:test", 40)
    assert document["accuracy"] == 36 / 40
    assert document["accuracy_se"] == pytest.approx(math.sqrt(0.9 * 0.1 / 39), rel=1e-12)
    assert document["confused"] == [
        {"label": "7", "taken_for": "1", "n": 3},
        {"label": "2", "taken_for": "1", "n": 1},
    ]
    counts = np.array(document["counts"])
    assert counts.sum() == 40
    assert counts[7, 1] == 3
    assert document["pictures_per_s"] == pytest.approx(40 / document["seconds"])


def test_the_table_says_it_too(store, data, capsys, monkeypatch):
    monkeypatch.setenv("SCRIMP_DATA", str(data))
    assert main(["eval", str(store), "--pictures", "mnist:test"]) == 0
    out = capsys.readouterr().out
    assert "90.00 %" in out
    assert "7 taken for 1" in out
    assert "pictures per second" in out


def test_an_open_network_shows_its_logits(store):
    with scrimp.open(store, threads=1) as model:
        assert isinstance(model, PictureModel)
        logits = model.logits(pictures()[..., None])
        assert logits.shape == (40, CLASSES)
        assert logits.argmax(axis=1).tolist() == SHOWN
        assert (model.classes, model.labels) == (CLASSES, ())
    with pytest.raises(UsageError, match="network of pictures, which has no context"):
        scrimp.open(store, context=12)
    with pytest.raises(UsageError, match="5,000 threads"):
        scrimp.open(store, threads=5000)


def other_net(**sides):
    image = Image(**({"height": SIDE, "width": SIDE, "channels": 1} | sides))
    return Net(image, NET.pixels, (Node("p", "max_pool", ("input",)), Node("l", "linear", ("p",), outputs=3)))


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ({"height": 16, "width": 16}, "--pictures mnist:test@16x16"),
        ({"channels": 3}, "mnist:test has 1 channels; the network sees 3"),
        ({}, "has labels up to 9; the network knows 3 classes"),
    ],
)
def test_pictures_that_the_network_does_not_see_are_refused(tmp_path, data, capsys, sides, words):
    net = other_net(**sides)
    vector = np.ones(3, np.float32)
    tensors = {
        "l.weight": encode(np.ones((3, net.image.size), np.float32), "int8:row"),
        "l.gain": vector,
        "l.bias": vector,
    }
    write_net(tmp_path / "net", net, tensors)
    assert main(["eval", str(tmp_path / "net"), "--pictures", "mnist:test", "--data", str(data)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 2


def test_a_net_that_does_not_lower_is_refused_by_tensor(tmp_path, data, capsys):
    path = write(tmp_path / "net", NET, 0.5, "int4:g64")
    assert main(["eval", str(path), "--pictures", "mnist:test", "--data", str(data)]) == 3
    assert "l.weight in int4:g64 has 13 scales in a row of 784 inputs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--pictures", "mnist:test", "--reference", "x"], 2, "--reference is about text, --pictures about pictures"),
        (["--pictures", "mnist:test"], 1, "The pictures are missing"),
        (["--pictures", "mnits:test"], 2, "names no pictures"),
        (["--data", "."], 2, "--data says where pictures lie"),
        ([], 3, "a network of pictures, which reads and writes no text"),
    ],
)
def test_calls_that_mean_nothing_say_so_in_a_line(store, capsys, monkeypatch, flags, code, words):
    monkeypatch.delenv("SCRIMP_DATA", raising=False)
    assert main(["eval", str(store), *flags]) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 2


def test_a_network_of_text_sees_no_pictures(tmp_path, data, capsys):
    from tiny_model import write_tiny_model

    model = write_tiny_model(tmp_path / "text")
    assert main(["eval", str(model), "--pictures", "mnist:test", "--data", str(data)]) == 2
    assert "is a network of text, which sees no pictures" in capsys.readouterr().err
