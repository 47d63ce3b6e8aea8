"""Whole trainings on a made set of pictures: what they reach, resume, and leave behind."""

import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
from made_pictures import RECIPE, write

torch = pytest.importorskip("torch")

from scrimp.errors import Refused, ScrimpError  # noqa: E402
from scrimp.formats import parse  # noqa: E402
from scrimp.integer.lower import lower  # noqa: E402
from scrimp.integer.reference import run as run_integers  # noqa: E402
from scrimp.measure.train_page import page  # noqa: E402
from scrimp.store.net import open_net  # noqa: E402
from scrimp.train.qat import run  # noqa: E402
from scrimp.train.qat.checkpoint import checkpoint_of  # noqa: E402
from scrimp.train.qat.course import distance, predict, rate_at  # noqa: E402
from scrimp.train.qat.optimizer import Optimizer  # noqa: E402
from scrimp.train.qat.recipe import Schedule  # noqa: E402
from scrimp.train.qat.recipe_file import parse_recipe  # noqa: E402
from scrimp.train.qat.stored import as_stored  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), 800, 400)


def job(data, text=RECIPE):
    return run.prepare(parse_recipe(tomllib.loads(text), data, "test"), data)


def read_store(path):
    return (path / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    return run.train(job(data), out), out


def test_a_ternary_network_learns_and_its_integers_agree(trained, data):
    report, out = trained
    assert report.accuracy > 0.95
    assert report.test_pictures == 400
    assert abs(report.integer - report.accuracy) <= 0.01
    assert report.same >= 396
    net, tensors = open_net(out)
    pictures = job(data).lessons.test
    logits = run_integers(lower(net, tensors), pictures.images)
    assert (logits.argmax(axis=1) == pictures.labels).mean() == report.integer
    assert (predict(as_stored(net, tensors), pictures) == pictures.labels).mean() == pytest.approx(
        report.accuracy, abs=0.01
    )


def test_the_store_says_what_it_came_from(trained):
    report, out = trained
    document = json.loads((out / "scrimp.json").read_text())
    assert document["source"]["recipe"]["model"]["name"] == "mlp"
    assert document["report"]["accuracy"] == report.accuracy
    assert len(document["report"]["curve"]) == 6
    assert not checkpoint_of(out).exists()
    assert report.file_bytes == sum(file.stat().st_size for file in out.iterdir())


def test_layers_tell_how_their_weights_lie(trained):
    report, out = trained
    _, tensors = open_net(out)
    for layer in report.layers:
        codes = tensors[f"{layer.name}.weight"].codes()
        shares = [float((codes == code).mean()) for code in range(3)]
        assert layer.levels == (-1, 0, 1)
        assert layer.shares == pytest.approx(shares)
        assert layer.entropy_bits == pytest.approx(-sum(s * np.log2(s) for s in shares if s))
        assert layer.capacity_used == pytest.approx(layer.entropy_bits / np.log2(3))
    assert [layer.shape for layer in report.layers] == [(24, 64), (16, 24), (10, 16)]


def test_the_page_shows_all_of_it(trained):
    report, _ = trained
    made = page(report)
    assert made.startswith("<!doctype html>")
    for words in ("fc1", "ternary:row", f"{100 * report.accuracy:.2f}", "capacity used", "<svg", ", 0: ", "8 × 8",
                  "<td>schedule.epochs</td><td>6</td>"):  # fmt: skip
        assert words in made
    assert page(replace(report, curve=report.curve[:1]))


class Interrupted(Exception):
    pass


def test_a_run_that_was_interrupted_ends_in_the_same_store(data, tmp_path):
    text = RECIPE.replace("epochs = 6", 'epochs = 4\nprogressive = [["int4:row", 1]]')
    text += "\n[augmentation]\nrotate = 5\ncrop = 1\n"
    run.train(job(data, text), tmp_path / "whole")

    def stop(count, epoch):
        if count < 4:
            raise Interrupted

    said = []
    for _ in range(3):  # in the float epoch, under four bits, and after
        with pytest.raises(Interrupted):
            run.train(job(data, text), tmp_path / "parts", told=stop, noted=said.append)
    assert said == ["going on after epoch 1 of 4", "going on after epoch 2 of 4"]
    assert not (tmp_path / "parts").exists()
    run.train(job(data, text), tmp_path / "parts")
    assert read_store(tmp_path / "parts") == read_store(tmp_path / "whole")


def test_a_second_run_into_the_same_place_waits_its_turn(data, tmp_path):
    out, told = tmp_path / "out", []

    def meanwhile(count, epoch):
        with pytest.raises(ScrimpError, match="Another scrimp is training"):
            run.train(job(data), out)
        told.append(count)

    run.train(job(data, RECIPE.replace("epochs = 6", "epochs = 2")), out, told=meanwhile)
    assert told == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_learning_in_sixteen_bits_is_judged_in_thirty_two(data, tmp_path):
    text = RECIPE.replace("epochs = 6", 'epochs = 6\nprecision = "bf16"').replace("mlp", "vgg8")
    text = text.replace("hidden = [24, 16]", "channels = [8]\nhidden = [16]")
    report = run.train(job(data, text), tmp_path / "out")
    assert report.accuracy > 0.95
    assert report.same >= 396
    net, tensors = open_net(tmp_path / "out")
    logits = run_integers(lower(net, tensors), job(data).lessons.test.images)
    assert (logits.argmax(axis=1) == job(data).lessons.test.labels).mean() == report.integer


def test_another_recipe_starts_over(data, tmp_path):
    def stop(count, epoch):
        raise Interrupted

    with pytest.raises(Interrupted):
        run.train(job(data), tmp_path / "out", told=stop)
    seen, said, before = [], [], checkpoint_of(tmp_path / "out").read_bytes()
    other = RECIPE.replace("epochs = 6", "epochs = 2")
    run.train(job(data, other), tmp_path / "out", told=lambda count, epoch: seen.append(count), noted=said.append)
    assert seen == [1, 2]
    assert len(said) == 1
    assert "is of another recipe" in said[0]
    assert (tmp_path / ".out.training.old").read_bytes() == before


def test_checkpoints_that_are_none_are_refused(data, tmp_path):
    def stop(count, epoch):
        raise Interrupted

    path = checkpoint_of(tmp_path / "out")
    with pytest.raises(Interrupted):
        run.train(job(data), tmp_path / "out", told=stop)
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    infinite = bytearray(good)
    infinite[8 + header : 12 + header] = np.float32(np.inf).tobytes()
    strange = good[:8] + good[8 : 8 + header].replace(b"value/bias", b"value/bits") + good[8 + header :]
    no_json, no_curve = good[:-1] + b"\x80", good.replace(b'"curve"', b'"kurve"', 1)
    for content in (b"", b"words", good[:-4], bytes(infinite), strange, no_json, no_curve):
        path.write_bytes(content)
        with pytest.raises(Refused) as told:
            run.train(job(data), tmp_path / "out")
        assert "--fresh" in str(told.value)
    seen = []
    with pytest.raises(Interrupted):
        run.train(job(data), tmp_path / "out", fresh=True, told=lambda *row: (seen.append(row[0]), stop(*row)))
    assert seen == [1]


def test_a_teacher_is_listened_to(data, tmp_path, trained):
    text = RECIPE.replace("epochs = 6", "epochs = 2") + '\n[distillation]\nteacher = "t"\nsoft = 0.9\n'
    with pytest.raises(ScrimpError, match="does not exist"):
        job(data, text.replace('"t"', '"nothing"'))
    text = text.replace('"t"', f'"{trained[1]}"')
    report = run.train(job(data, text), tmp_path / "out")
    plain = run.train(job(data, RECIPE.replace("epochs = 6", "epochs = 2")), tmp_path / "plain")
    assert report.curve[0].loss != plain.curve[0].loss


def test_a_teacher_of_other_pictures_is_refused(data, trained):
    text = RECIPE.replace("8x8", "16x16") + f'\n[distillation]\nteacher = "{trained[1]}"\n'
    with pytest.raises(ScrimpError, match="tells 10 classes of"):
        job(data, text)


def test_the_soft_loss_is_hinton_s():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 3, (5, 4)), rng.normal(0, 3, (5, 4))
    p, q = (np.exp(x / 2.5) / np.exp(x / 2.5).sum(axis=1, keepdims=True) for x in (a, b))
    expected = 2.5**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert float(distance(torch.tensor(a), torch.tensor(b), 2.5)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_the_optimizer_is_torch_s(kind):
    start = torch.randn(30, dtype=torch.float64)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = Optimizer(kind, 0.1 if kind == "adam" else 0.0)
    optimizer.follow({"latent": ours})
    if kind == "adam":
        other = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    else:
        other = torch.optim.SGD([theirs], lr=0.01, momentum=0.9, nesterov=True)
    for _ in range(20):
        for values in (ours, theirs):
            (values.square() * torch.arange(30)).sum().backward()
        optimizer.step({"latent": ours}, 0.01)
        other.step()
        other.zero_grad()
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_the_rate_rises_and_falls():
    schedule = Schedule(10, rate=2.0, warm_up=2)
    rates = [rate_at(schedule, done) for done in np.linspace(0, 10, 101)]
    assert max(rates) == pytest.approx(2.0)
    assert int(np.argmax(rates)) == 20
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0.002)
    assert rates[60] == pytest.approx(1.0, rel=0.01)


def test_what_does_not_run_in_integers_is_told_and_stored(data, tmp_path):
    text = RECIPE.replace('"ternary:row"', '"int4:g32"').replace("epochs = 6", "epochs = 2")
    assert "does not lower" in run.forecast(job(data, text)).refusal
    report = run.train(job(data, text), tmp_path / "out")
    assert report.integer is None
    assert "does not run in integers" in report.notes[0]
    assert run.forecast(job(data)).refusal == ""


@pytest.mark.parametrize("kind", ["dynamic", "float"])
def test_other_activations_get_a_step_in_the_store(data, tmp_path, kind):
    text = RECIPE.replace("epochs = 6", "epochs = 4").replace("1e-2", "2e-2")
    report = run.train(job(data, text + f'\n[activations]\nkind = "{kind}"\n'), tmp_path / "out")
    assert report.accuracy > 0.8
    assert abs(report.integer - report.accuracy) <= 0.02
    assert kind in report.notes[0]


def test_unknown_operations_are_told(data):
    with pytest.raises(ScrimpError, match="No operation is called 'conv9'"):
        job(data, RECIPE.replace("epochs = 6", "epochs = 6\nfreeze = { conv9 = 2 }"))


def test_frozen_weights_stay(data, tmp_path):
    text = RECIPE.replace("epochs = 6", "epochs = 2\nfreeze = { fc1 = 0 }")
    run.train(job(data, text), tmp_path / "out")
    from scrimp.train.qat.student import Student

    fresh = Student(job(data).net, 0)
    fresh.store_as(dict.fromkeys(fresh.products, (parse("ternary:row"), "seq")), "static")
    _, tensors = open_net(tmp_path / "out")
    np.testing.assert_array_equal(tensors["fc1.weight"].codes(), fresh.weights["fc1"].tensor().codes())
