"""Nets in training: the same arithmetic as the stored tensors say, batch norm folded."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scrimp.errors import Refused, UsageError  # noqa: E402
from scrimp.formats import parse  # noqa: E402
from scrimp.integer.lower import lower  # noqa: E402
from scrimp.integer.reference import run  # noqa: E402
from scrimp.models.cnn import Image  # noqa: E402
from scrimp.train.qat.course import rest  # noqa: E402
from scrimp.train.qat.nets import NETS, build  # noqa: E402
from scrimp.train.qat.stored import as_stored  # noqa: E402
from scrimp.train.qat.student import EPSILON, Student, fold, numbers  # noqa: E402

LABELS = tuple("abcd")
SMALL = {"mlp": {"hidden": (20, 12)}, "vgg8": {"channels": (6, 8), "hidden": (10,)}, "resnet8": {"channels": (6, 8)},
         "depthwise": {"channels": (6,), "hidden": (12,)},
         "patches": {"channels": (6, 8), "kernels": (4, 2), "strides": (3, 1), "hidden": (12,)}}  # fmt: skip


def student(name, weights="ternary:row", rule="seq", channels=3, side=16):
    """With batch norms as if it had learned for a while."""
    net = build(name, Image(side, side, channels), LABELS, SMALL[name])
    made = Student(net, seed=1)
    made.store_as(dict.fromkeys(made.products, (parse(weights), rule)), "static")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in made.norms.values():
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.normal_(0, 0.3, generator=generator)
    pictures = np.random.default_rng(3).integers(0, 256, (64, side, side, channels), dtype=np.uint8)
    for _ in range(40):
        made(numbers(pictures, net.pixels))
    return made.eval(), pictures


def test_the_networks_are_those_of_the_issue():
    image = Image(32, 32, 3)
    vgg = build("vgg8", image, tuple("0123456789"), {})
    products = [node.outputs for node in vgg.nodes if node.multiplies]
    assert products == [32, 32, 64, 64, 128, 128, 256, 256, 256, 128, 10]
    resnet = build("resnet8", image, tuple("0123456789"), {})
    weights = sum(rows * columns for rows, columns in (s for n, s in resnet.tensors().items() if n.endswith("weight")))
    assert weights == 77_360  # MLPerf Tiny's, as its int8 file has them
    macs = sum(
        resnet.shapes()[n.name].size * resnet.tensors()[f"{n.name}.weight"][1] for n in resnet.nodes if n.multiplies
    )
    assert round(macs / 1e6, 2) == 12.50
    mlp = build("mlp", Image(16, 16, 1), tuple("0123456789"), {})
    assert sum(s[0] * s[1] for n, s in mlp.tensors().items() if n.endswith("weight")) == 64_608


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_answer_as_training_did(name, channels):
    """Logits of integers are those of torch, up to what rounding each activation to another code can do: the mean
    distance stays below a twentieth of the spread of the logits."""
    made, pictures = student(name, "int4:row", "lsq", channels=channels)
    tensors = made.tensors()
    assert set(tensors) == set(made.net.tensors())
    assert {n: tuple(t.shape) for n, t in tensors.items()} == made.net.tensors()
    with torch.no_grad():
        ours = made(numbers(pictures, made.net.pixels)).numpy()
    theirs = run(lower(made.net, tensors), pictures).astype(np.float64)
    theirs *= np.abs(ours).mean() / np.abs(theirs).mean()  # logits are all times one number
    assert np.abs(ours - theirs).mean() < ours.std() / 20


@pytest.mark.parametrize("name", NETS)
def test_a_stored_network_as_torch_runs_it_is_the_one_that_was_trained(name):
    made, pictures = student(name)
    x = numbers(pictures, made.net.pixels)
    with torch.no_grad():
        again, ours = as_stored(made.net, made.tensors())(x), made(x)
    assert float((again - ours).abs().mean()) < float(ours.std()) / 50


def test_a_folded_batch_norm_is_the_batch_norm():
    """Each of gain, product and sum is rounded once or twice to float32."""
    norm = torch.nn.BatchNorm1d(50, eps=EPSILON)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.normal_(1, 0.5, generator=generator)
        norm.bias.normal_(0, 1, generator=generator)
        norm.running_mean.normal_(0, 5, generator=generator)
        norm.running_var.uniform_(0.01, 30, generator=generator)
    gain, bias = fold(norm)
    x = torch.randn((200, 50), generator=generator) * 5
    exact = torch.nn.functional.batch_norm(
        x.double(), norm.running_mean.double(), norm.running_var.double(), norm.weight.double(), norm.bias.double(),
        eps=EPSILON,
    ).detach()  # fmt: skip
    made = x.double().numpy() * gain.astype(np.float64) + bias.astype(np.float64)
    bound = 2**-24 * (np.abs(x.double().numpy() * gain) + np.abs(bias)) * (1 + 2**-20)
    assert (np.abs(made - exact.numpy()) <= bound).all()


def test_a_pool_before_rounding_is_the_pool_after_it():
    made, pictures = student("vgg8")
    x = numbers(pictures, made.net.pixels)
    with torch.no_grad():
        early = made(x)
        made._late = {}
        assert torch.equal(made(x), early)


def test_numbers_are_those_of_the_integers():
    from scrimp.integer.reference import from_bytes

    made, pictures = student("mlp", channels=3)
    codes = from_bytes(pictures, made.net.pixels).astype(np.float32) * np.float32(made.net.pixels.step)
    np.testing.assert_array_equal(numbers(pictures, made.net.pixels).permute(0, 2, 3, 1).numpy(), codes)


def test_networks_that_can_t_be_are_refused():
    with pytest.raises(UsageError, match="has no channels"):
        build("mlp", Image(16, 16, 1), LABELS, {"channels": (3,)})
    with pytest.raises(UsageError, match="one number"):
        build("depthwise", Image(16, 16, 1), LABELS, {"channels": (3, 4)})
    with pytest.raises(UsageError, match="2 channels, 1 kernels and 1 strides"):
        build("patches", Image(16, 16, 1), LABELS, {"channels": (3, 4)})
    with pytest.raises(Refused, match="must fit"):
        build("depthwise", Image(8, 8, 1), LABELS, {})


@pytest.mark.parametrize("name", ["vgg8", "resnet8"])
def test_at_rest_norms_are_of_the_weights_as_they_are(name):
    """The means of the batches that are shown, whatever was before; and no weight has moved."""
    made, pictures = student(name)
    before = {key: value.clone() for key, value in made.named_parameters()}
    batches = [numbers(pictures[at : at + 32], made.net.pixels) for at in (0, 32)]
    with torch.no_grad():
        for weight in made.weights.values():
            weight.latent.copy_(-weight.latent)  # running means remember another network
    first = next(node for node in made.net.nodes if node.multiplies)
    rest(made, batches)
    seen = [made.products[first.name](x).transpose(0, 1).flatten(1) for x in batches]
    norm = made.norms[first.name]
    mean, variance = (torch.stack(parts).mean(dim=0)
                      for parts in ([x.mean(dim=1) for x in seen], [x.var(dim=1) for x in seen]))  # fmt: skip
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-5, atol=1e-6)
    for key, value in made.named_parameters():
        assert torch.equal(value.abs() if key.endswith("latent") else value,
                           before[key].abs() if key.endswith("latent") else before[key])  # fmt: skip
        assert value.grad is None
