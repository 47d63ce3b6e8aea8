"""Fake quantization of weights: gradients beside their definitions, and what is trained is what is stored."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scrimp.errors import UsageError  # noqa: E402
from scrimp.formats import parse  # noqa: E402
from scrimp.train.qat.rules import BEST_STEP, Levels, check_rule, default_rule, levels  # noqa: E402
from scrimp.train.qat.weights import TrainedWeight, lloyd, octav, to_codes  # noqa: E402

#: Every rule with formats it serves, of all blocks and scale types.
SERVED = [("ternary:row", "absmean"), ("ternary:tensor", "absmean"), ("binary:row", "absmean"), ("binary:row", "sign"),
          ("binary", "lsq"), ("int8:row", "absmax"), ("int4:g32", "absmax"), ("int4:row", "octav"), ("int2r:row", "octav"),
          ("int8:row", "lsq"), ("int3:tensor", "lsq"), ("ternary2:row@bf16", "lsq"), ("ternary:row", "seq"),
          ("ternary:row@f32", "seq"), ("kmeans2:row", "seq"), ("kmeans4:row", "kmeans"), ("kmeans3:g32", "kmeans"),
          ("nf4", "format"), ("mxfp4", "format"), ("posit8_1", "format"), ("int4z:g32", "format"), ("fp8_e4m3:row", "format"),
          ("bf16", "format"), ("f32", "float")]  # fmt: skip


def weight(format, rule, rows=6, columns=50, seed=0):
    made = TrainedWeight(rows, columns)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.latent.normal_(0, 0.1, generator=generator)
    made.store_as(parse(format), check_rule(parse(format), rule))
    return made


@pytest.mark.parametrize(("format", "rule"), SERVED)
def test_what_is_trained_is_what_is_stored(format, rule):
    made = weight(format, rule)
    for step in range(3):  # also after scales and levels have moved
        stored = made.tensor()
        assert stored.format.name == parse(format).name
        np.testing.assert_array_equal(stored.dequantize(), made().detach().numpy())
        loss = (made() * torch.linspace(-1, 2, 300).view(6, 50)).sum()
        loss.backward()
        with torch.no_grad():
            for values in (made.latent, made.scale, made.codebook):
                if values.grad is not None:
                    values -= 0.01 * (step + 1) * values.grad
                    values.grad = None
        made.settle()


@pytest.mark.parametrize(("format", "rule"), SERVED)
def test_every_format_has_a_rule_of_its_own_that_serves_it(format, rule):
    assert check_rule(parse(format), default_rule(parse(format)))


@pytest.mark.parametrize(
    ("format", "rule"),
    [("int4:row", "absmean"), ("ternary:row", "octav"), ("nf4", "lsq"), ("f32", "lsq"), ("int4:row", "float"),
     ("int4:row", "seq"), ("kmeans4:row", "seq"), ("ternary:row", "sign"), ("int4z:g32", "lsq"), ("ternary:row", "sqe")],
)  # fmt: skip
def test_a_rule_that_can_t_serve_a_format_says_which_can(format, rule):
    with pytest.raises(UsageError) as told:
        check_rule(parse(format), rule)
    assert told.value.hint


def gradients(made, seed=1):
    """Of latent and scale, for a random gradient of the output."""
    given = torch.randn(made.latent.shape, generator=torch.Generator().manual_seed(seed))
    made().backward(given)
    return given


@pytest.mark.parametrize(("format", "rule"), [("int4:row", "lsq"), ("ternary:row", "lsq"), ("ternary:row@f32", "seq"),
                                              ("int3:tensor", "lsq"), ("kmeans2:row", "seq"), ("int4:g32", "lsq")])  # fmt: skip
def test_learned_scales_have_the_gradients_of_their_papers(format, rule):
    """LSQ equations 3 and 5 with its factor 1 / √(n Q); SEQ differs in how far the gradient passes. By hand, number by
    number."""
    made = weight(format, rule)
    given = gradients(made)
    known, one = levels(made.format, rule), made.latent.detach()
    group = made.format.group(50)
    scales = made.tensor().row_scales()
    high = known.step * known.top - known.zero
    reach = {("seq", 2): 0.99 * 1.5, ("seq", 3): 0.99 * 2}.get((rule, known.top))
    made_of = made().detach()
    sums, sizes = np.zeros(scales.shape), np.zeros(scales.shape)
    counts = np.zeros(scales.shape)
    for n in range(6):
        for k in range(50):
            scale, v = float(scales[n, k // group]), float(one[n, k] / scales[n, k // group])
            low_end, high_end = (-known.zero, high) if reach is None else (-reach, reach)
            inside = low_end < v < high_end
            number = min(max(np.rint(v + known.zero), 0), known.top) - known.zero
            assert float(made.latent.grad[n, k]) == (float(given[n, k]) if inside else 0.0)
            sums[n, k // group] += float(given[n, k]) * (number - v if inside else number)
            counts[n, k // group] += 1
            sizes[n, k // group] += abs(float(given[n, k])) * (abs(number) + abs(v))
            assert abs(scale * number - float(made_of[n, k])) <= 2**-23 * abs(scale * number)
    if made.format.block == "tensor":
        sums, counts, sizes = (part.sum(keepdims=True) for part in (sums, counts, sizes))
    if isinstance(made.format.block, int):
        counts[:] = group  # a ragged group is filled up
    factor = made.first.squeeze(-1).numpy() / np.sqrt(counts * high)
    expected, bound = sums * factor, (counts + 8) * 2**-23 * sizes * factor  # sums of float32, of terms off by 2^-23
    assert (np.abs(made.scale.grad.squeeze(-1).numpy() - expected) <= bound).all()


@pytest.mark.parametrize(("format", "rule"), [("ternary:row", "absmean"), ("binary:row", "absmean"), ("nf4", "format"),
                                              ("int8:row", "absmax")])  # fmt: skip
def test_a_gradient_that_passes_everywhere_passes_everywhere(format, rule):
    made = weight(format, rule)
    given = gradients(made)
    assert torch.equal(made.latent.grad, given)


def test_absmean_is_that_of_b158():
    made = weight("ternary:tensor@f32", "absmean")
    w = made.latent.detach().numpy().astype(np.float64)
    scale = np.float32(np.abs(w).mean())
    expected = np.clip(np.rint(w / scale), -1, 1)
    np.testing.assert_array_equal(made.tensor().codes().astype(int) - 1, expected)
    np.testing.assert_allclose(made.tensor().row_scales(), scale, rtol=1e-6)


def test_signs_are_those_of_the_weights_and_zero_is_positive():
    made = weight("binary:row", "sign")
    with torch.no_grad():
        made.latent[0, 0] = 0
    given = gradients(made)
    expected = np.where(made.latent.detach().numpy() >= 0, 1, -1)
    np.testing.assert_array_equal(made.tensor().codes().astype(int) * 2 - 1, expected)
    near = np.abs(made.latent.detach().numpy()) < made.tensor().row_scales()
    np.testing.assert_array_equal(made.latent.grad.numpy(), np.where(near, given.numpy(), 0))


def test_octav_solves_its_equation_and_has_the_least_error():
    w = torch.randn((1, 1, 20_000), generator=torch.Generator().manual_seed(3))
    for bits in (3, 4, 6):
        clip = float(octav(w, bits))
        size = w.abs().flatten().double()

        def error(c, bits=bits, size=size):
            return float((4.0**-bits * c * c / 3 * (size <= c) + (size - c).square() * (size > c)).mean())

        around = [error(clip * factor) for factor in (0.97, 1.0, 1.03)]
        assert min(around) == around[1]


def test_beyond_octav_s_clipping_point_the_gradient_shrinks():
    made = weight("int2:row", "octav")
    with torch.no_grad():
        made.latent[0, 0] = 5.0
    given = gradients(made)
    clip = float(made.tensor().row_scales()[0, 0]) * 2
    assert float(made.latent.grad[0, 0]) == pytest.approx(float(given[0, 0]) * clip / 5.0, rel=1e-6)


def test_each_level_of_a_codebook_follows_the_sum_of_its_weights():
    made = weight("kmeans2:tensor", "kmeans")
    given = gradients(made).numpy()
    stored = made.tensor()
    scale = stored.row_scales()[0, 0]
    expected = [float((given * (stored.codes() == code)).sum() * scale) for code in range(4)]
    np.testing.assert_allclose(made.codebook.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_lloyd_finds_separate_clusters():
    values = torch.tensor([-1.0, -0.9, 0.0, 0.1, 0.5, 0.6, 2.0, 2.1])
    np.testing.assert_allclose(lloyd(values, 4), [-0.95, 0.05, 0.55, 2.05], atol=1e-6)


@pytest.mark.parametrize("count", sorted(BEST_STEP))
def test_best_steps_are_best(count):
    """The mean squared error of uniform levels, integrated over a Gaussian: no step close by has less."""
    x = np.linspace(-8, 8, 400_001)
    density = np.exp(-x * x / 2)

    def error(step):
        zero = (count - 1) / 2
        number = np.clip(np.rint(x / step + zero), 0, count - 1) - zero
        return float((np.square(x - number * step) * density).sum())

    step = BEST_STEP[count]
    assert error(step) <= min(error(step * 0.99), error(step * 1.01))


def test_codes_of_half_numbers_are_those_of_seq():
    v = torch.tensor([-9.0, -1.1, -0.9, -0.1, 0.1, 0.9, 1.1, 9.0])
    assert to_codes(v, Levels(1, 1.5, 3)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_row_of_zeros_survives():
    for format, rule in SERVED:
        made = weight(format, rule)
        with torch.no_grad():
            made.latent[0] = 0
        made.store_as(parse("f32"), "float")
        made.store_as(parse(format), rule)
        assert torch.isfinite(made()).all(), format
        gradients(made)
        assert torch.isfinite(made.latent.grad).all(), format


def test_frozen_weights_have_no_gradient():
    made = weight("ternary:row", "seq")
    made.hold(True)
    assert not made().requires_grad
    made.hold(False)
    assert made().requires_grad
