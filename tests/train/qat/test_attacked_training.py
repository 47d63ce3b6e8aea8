"""Recipes, checkpoints and teachers that went wrong without a word, or with too many."""

from __future__ import annotations

import json
import tomllib

import numpy as np
import pytest
from made_pictures import RECIPE, write

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file  # noqa: E402

from scrimp.errors import Refused, ScrimpError, UsageError  # noqa: E402
from scrimp.models.cnn import Image, Net, Node, Pixels  # noqa: E402
from scrimp.store.net import write_net  # noqa: E402
from scrimp.tensors import encode  # noqa: E402
from scrimp.train.qat import run  # noqa: E402
from scrimp.train.qat.checkpoint import checkpoint_of  # noqa: E402
from scrimp.train.qat.recipe_file import parse_recipe  # noqa: E402
from scrimp.train.qat.stored import teacher  # noqa: E402

TINY = RECIPE.replace("epochs = 6", "epochs = 2").replace("hidden = [24, 16]", "hidden = [6]")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), 100, 40)


def job(data, text=TINY):
    return run.prepare(parse_recipe(tomllib.loads(text), data, "test"), data)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"mlp"\nhidden = [6]', '"resnet8"\nchannels = []', "it has channels"),
        ("hidden = [6]", f"hidden = {[4096, 65536] * 32}", "of memory and more"),
        ("ternary:row", "e8m0:row", "neither sign nor zero"),
        ("float_epochs = 1", 'progressive = [["e8m0", 1]]', "neither sign nor zero"),
        ("float_epochs = 1", 'freeze = { "conv*" = 1 }', "No operation is called"),
        ("batch = 32", "batch = 101", "Batches of 101 from 100"),
    ],
)
def test_what_a_recipe_can_not_ask_for(data, old, new, words):
    assert old in TINY
    with pytest.raises(UsageError, match=words) as told:
        job(data, TINY.replace(old, new))
    assert told.value.hint


def test_one_bit_of_integers_has_a_rule(data, tmp_path):
    """Its levels are −1 and 0, so there is no range above zero whose scale could be learned."""
    with pytest.raises(UsageError, match="can't choose scales"):
        job(data, TINY.replace('"ternary:row"', '"int1:row"\nrule = "lsq"'))
    assert run.train(job(data, TINY.replace("ternary:row", "int1:row")), tmp_path / "out").layers


def test_a_training_that_diverges_ends_there_and_keeps_what_it_had(data, tmp_path):
    """Weights grow a thousandfold with every step: the second epoch overflows."""
    wild = 'epochs = 9\noptimizer = "sgd"\nweight_decay = 10\nwarm_up = 1'
    text = TINY.replace("epochs = 2", wild).replace("ternary:row", "f32").replace("rate = 1e-2", "rate = 100")
    text = text.replace("batch = 32", "batch = 8").replace("hidden = [6]", "hidden = []")
    seen = []
    with pytest.raises(ScrimpError, match="diverged in epoch") as told:
        run.train(job(data, text), tmp_path / "out", told=lambda count, epoch: seen.append(epoch.loss))
    assert "schedule.rate" in told.value.hint
    assert np.isfinite(seen).all()
    assert len(seen) < 8
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def interrupted(data, tmp_path_factory):
    """A checkpoint after one epoch of two."""
    out = tmp_path_factory.mktemp("interrupted") / "out"

    def stop(count, epoch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(job(data), out, told=stop)
    return load_file(checkpoint_of(out))


def state_with(arrays, **changes):
    state = json.loads(arrays["state"].tobytes()) | changes
    return arrays | {"state": np.frombuffer(json.dumps(state).encode(), np.uint8)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("value/products.fc1.weight.latent", 3e38, "no training comes to"),
        ("value/activations.fc1.first", 3e38, "no training comes to"),
        ("value/activations.fc1.first", -1.0, "negative"),
        ("value/norms.fc1.running_var", -5.0, "negative"),
        ("square/bias", -1.0, "negative"),
        ("loss", 1e308, "no list of epochs"),
        ("loss", -1.0, "no list of epochs"),
        ("weights", "\ud800", "no list of epochs"),
        ("weights", "<script>", "no list of epochs"),
    ],
)
def test_numbers_that_no_checkpoint_holds_are_refused(data, tmp_path, interrupted, name, value, words):
    path = checkpoint_of(tmp_path / "out")
    if name in interrupted:
        save_file(interrupted | {name: np.full_like(interrupted[name], value)}, path)
    else:
        [row] = json.loads(interrupted["state"].tobytes())["curve"]
        row = [value, *row[1:]] if name == "loss" else [*row[:-1], value]
        save_file(state_with(interrupted, curve=[row]), path)
    before = path.read_bytes()
    with pytest.raises(Refused, match=words) as told:
        run.train(job(data), tmp_path / "out")
    assert "--fresh" in told.value.hint
    assert path.read_bytes() == before
    assert not (tmp_path / "out").exists()


def test_a_teacher_may_have_names_that_torch_takes_itself(tmp_path):
    nodes = (
        Node("forward", "linear", ("input",), outputs=4, relu=True),
        Node("keys", "linear", ("forward",), outputs=3),
    )
    net = Net(Image(2, 2, 1), Pixels(0, 1, 1 / 64), nodes)
    random = np.random.default_rng(0)
    tensors = {}
    for name, shape in net.tensors().items():
        values = random.uniform(0.5, 1, shape).astype(np.float32)
        tensors[name] = encode(values, "int8:row") if len(shape) == 2 else values
    write_net(tmp_path / "teacher", net, tensors)
    made = teacher(tmp_path / "teacher", net)(torch.ones(1, 1, 2, 2))
    hidden = np.rint(
        (tensors["forward.weight"].dequantize().sum(axis=1) * tensors["forward.gain"] + tensors["forward.bias"])
        / tensors["forward.step"]
    ).clip(0, 127) * tensors["forward.step"]  # fmt: skip
    logits = tensors["keys.weight"].dequantize() @ hidden * tensors["keys.gain"] + tensors["keys.bias"]
    np.testing.assert_allclose(made.numpy()[0], logits, rtol=1e-4)


def test_a_teacher_that_is_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScrimpError, match="is no directory"):
        teacher(tmp_path / "file", Net(Image(1, 1, 1), Pixels(0, 1, 1.0), (Node("l", "linear", ("input",), 3),)))
