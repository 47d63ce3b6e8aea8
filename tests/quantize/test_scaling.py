"""AWQ and SmoothQuant: against direct evaluation, never worse than rounding alone, and better where they should be."""

from dataclasses import replace

import numpy as np
import pytest
from folded_networks import network
from layers import FORMATS, of_inputs, output_error, statistics, weights

from scrimp.calibrate.accumulate import SAMPLE_ROWS, Accumulator
from scrimp.engine import Engine
from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.program import Program
from scrimp.quantize import awq, rtn, smoothquant
from scrimp.quantize.fold import Group, apply_fold, fold_groups, shared
from scrimp.quantize.methods import METHODS, REWRITES, is_method, method
from scrimp.quantize.smoothquant import in_int8
from scrimp.tensors import from_floats

GROUP = Group(("a", "b"), 96)
RTN = dict.fromkeys("ab", METHODS["rtn"].run)
HEADS = Group(("a", "b"), 96, rows="v", repeats=3, head_dim=16)


def layer(seed=0, rows=40):
    return {"a": weights(rows, 96, seed), "b": weights(rows // 2, 96, seed + 1)}


def outliers(cols=96, rows=400, seed=0):
    """Inputs of which a few are far stronger than the others, as those of language models."""
    rng = np.random.default_rng(seed)
    strength = np.where(rng.random(cols) < 0.05, 40.0, 1.0)
    return (rng.standard_normal((rows, cols)) * strength).astype(np.float32)


def error(layer, formats, s, moments):
    """``Σ tr(...)`` by the definition, one matrix after the other."""
    total = 0.0
    for name, weight in layer.items():
        rounded = rtn.quantize(weight * s, parse(formats[name])).dequantize()
        apart = rounded.astype(np.float64) / s - weight
        total += np.trace(apart @ moments @ apart.T)
    return total


def parsed(formats):
    return {name: parse(format) for name, format in formats.items()}


@pytest.mark.parametrize("group", [GROUP, HEADS], ids=["plain", "heads"])
@pytest.mark.parametrize("format", ["int3:g32", "int4z:g32", "nf4:g32", "ternary"])
def test_awq_finds_the_best_of_its_family(group, format):
    """The oracle evaluates every r by NumPy; on few rows all candidates are tried on all of them."""
    layers, formats = layer(rows=30), dict.fromkeys("ab", format)
    measured = of_inputs(outliers())
    used = measured.magnitude.astype(np.float64)
    held = np.concatenate([np.abs(w) / np.abs(w).mean(axis=1, keepdims=True) for w in layers.values()]).mean(axis=0)
    candidates = (
        [np.ones(96)]
        + [used**r for r in awq.EXPONENTS]
        + [used**r / held ** (1 - r) for r in awq.EXPONENTS_WITH_WEIGHTS]
    )
    candidates = [shared(group, (s / np.sqrt(s.max() * s.min())).astype(np.float32)) for s in candidates]
    least = min(error(layers, formats, s, measured.moments) for s in candidates)
    found = awq.search(group, layers, measured, parsed(formats), RTN)
    assert error(layers, formats, found.s, measured.moments) == pytest.approx(least, rel=1e-3)
    assert not found.notes


@pytest.mark.parametrize("name", ["awq", "awq+gptq"])
@pytest.mark.parametrize("format", FORMATS)
def test_awq_never_errs_more_than_what_follows_alone(format, name):
    """Every format with scales: the rewritten and rounded group under H, in the original's inputs."""
    group, layers, wanted = Group(("a",), 96), {"a": weights(40, 96, 5)}, method(name)
    measured = statistics(96, seed=3)
    chosen = wanted.rewrite(group, layers, measured, {"a": parse(format)}, {"a": wanted.run})
    s = np.ones(96, np.float32) if chosen.s is None else chosen.s
    folded = apply_fold(group, s, layers, {}, {"a": measured})
    made = wanted(folded.weights["a"], parse(format), folded.statistics["a"])
    before = output_error(wanted(layers["a"], parse(format), measured), layers["a"], measured.moments)
    after = output_error(made, folded.weights["a"], folded.statistics["a"].moments)
    # W s, Ŵ and Ŵ / s are float32 numbers, each rounded once: their share of the output's magnitude
    magnitude = np.abs(layers["a"]).astype(np.float64)
    output = np.einsum("nk,nk->", magnitude @ np.abs(measured.moments), magnitude)
    assert np.sqrt(after) <= np.sqrt(before) + 3 * 2**-24 * np.sqrt(output)
    assert (chosen.s is None) == bool(chosen.notes)


def test_outliers_gain_most():
    layers, formats = layer(rows=256), parsed(dict.fromkeys("ab", "int3:g32"))
    plain, strong = statistics(96), of_inputs(outliers())
    gains = []
    for measured in (plain, strong):
        s = awq.search(GROUP, layers, measured, formats, RTN).s
        names = dict.fromkeys("ab", "int3:g32")
        gains.append(error(layers, names, s, measured.moments) / error(layers, names, np.float32(1), measured.moments))
    assert gains[1] < 0.6
    assert gains[1] < gains[0]


def test_a_search_that_finds_nothing_better_says_so():
    """Weights that the format holds exactly: every scaling can only err more."""
    codes = np.random.default_rng(0).integers(-7, 8, (40, 96))
    codes[:, ::32] = 7
    exact = {"a": (codes / 8).astype(np.float32), "b": (codes[:20] / 4).astype(np.float32)}
    formats = dict.fromkeys("ab", parse("int4:g32"))
    measured = replace(of_inputs(outliers()), sample=None)
    found = awq.search(GROUP, exact, measured, formats, RTN)
    assert found.s is None
    assert found.notes == ("of all ways to scale its inputs none errs less than no scaling",)


@pytest.mark.parametrize("dead", [[5], range(96)])
def test_inputs_that_are_never_active_do_no_harm(dead):
    x = outliers()
    x[:, dead] = 0
    measured = replace(of_inputs(x), sample=x)
    formats = dict.fromkeys("ab", parse("int4:g32"))
    for search in (awq.search, smoothquant.search):
        found = search(GROUP, layer(), measured, formats, RTN)
        assert found.s is None or (np.isfinite(found.s) & (found.s > 0)).all()


def test_int8_inputs_are_rounded_as_the_engine_does():
    """Through a matrix of ones and zeros that lets each input through, in a network of one product."""
    x = outliers(cols=80, rows=30)
    program = Program({"embedding": (30, 80), "eye": (80, 80)}, {})
    program.output = program.linear(program.embed("embedding"), "eye")[0].index
    eye = rtn.quantize(np.eye(80, dtype=np.float32), parse("int8:row@f32"), scale="absmax")
    engine = Engine(program, {"embedding": from_floats(parse("f32"), x), "eye": eye}, {}, context=32, threads=1,
                    isa="scalar")  # fmt: skip
    found = engine.forward(np.arange(30), 0, all_logits=True)
    expected = in_int8(x, 32)
    assert np.abs(found - expected).max() <= 4 * 2**-24 * np.abs(expected).max()
    assert np.abs(expected - x).max() > 0.01


def smooth_error(layers, formats, s, x):
    total = 0.0
    for name, weight in layers.items():
        rounded = rtn.quantize(weight * s, parse(formats[name])).dequantize()
        inputs = x / s
        padded = inputs.reshape(len(x), -1, 32)
        step = np.abs(padded).max(axis=2, keepdims=True) / 127
        inputs = (np.rint(padded / step) * step).reshape(len(x), -1)
        total += float(((inputs.astype(np.float64) @ rounded.T - x.astype(np.float64) @ weight.T) ** 2).sum())
    return total


def test_smoothquant_finds_the_best_of_its_family():
    layers, formats, x = layer(rows=30), {"a": "int8:row", "b": "int8:g32"}, outliers()
    measured = replace(of_inputs(x), sample=x)
    heaviest = np.abs(np.concatenate(list(layers.values()))).max(axis=0)
    candidates = [measured.peak**a / heaviest ** (1 - a) for a in smoothquant.ALPHAS]
    candidates = [np.ones(96)] + [s / np.sqrt(s.max() * s.min()) for s in candidates]
    errors = [smooth_error(layers, formats, s.astype(np.float32), x) for s in candidates]
    found = smoothquant.search(GROUP, layers, measured, parsed(formats), RTN)
    assert smooth_error(layers, formats, found.s, x) == pytest.approx(min(errors), rel=1e-3)
    assert min(errors) < 0.5 * errors[0]


def test_smoothquant_needs_a_sample():
    with pytest.raises(UsageError, match="needs a sample of what the layer reads"):
        smoothquant.search(GROUP, layer(), of_inputs(outliers()), parsed(dict.fromkeys("ab", "int8:row")), RTN)


@pytest.mark.parametrize("count", [0, 1, 255, 511, 512, 513, 5000])
def test_the_sample_is_every_so_manieth_input_however_they_come(count):
    x = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    found = []
    for step in (7, 512, 5000):
        sums = Accumulator(3)
        for at in range(0, count, step):
            sums.add(x[at : at + step])
        found.append(sums._sample)
    assert all((one == found[0]).all() for one in found)
    assert len(found[0]) == count if count < 2 * SAMPLE_ROWS else SAMPLE_ROWS <= len(found[0]) < 2 * SAMPLE_ROWS
    steps = np.diff(found[0][:, 0])
    assert (steps == steps[:1]).all()


def test_smoothquant_lowers_the_loss_of_an_int8_network_with_outliers():
    """A made network whose norms are strong in a few inputs, and weak there in the weights: run as a user runs it."""
    net = network(hidden_size=128, num_attention_heads=4, num_key_value_heads=2)
    rng = np.random.default_rng(8)
    groups, _ = fold_groups(net.program)
    for group in groups:  # in exact arithmetic all of them are the same network
        s = np.where(rng.random(group.width) < 0.04, 1 / 64, 1).astype(np.float32)
        folded = apply_fold(group, s, net.weights, net.vectors, {})
        net = net.with_tensors(folded.weights, folded.vectors)
    exact = net.logits()

    def loss(smooth):
        made = net
        for group in groups:
            inputs = made.taps(next(op.inputs[0] for op in net.program.ops if op.weights == group.readers))
            (x,) = inputs.values()
            found = smoothquant.search(
                group,
                {name: made.weights[name] for name in group.readers},
                replace(of_inputs(x), sample=x),
                dict.fromkeys(group.readers, parse("int8:row")),
                dict.fromkeys(group.readers, METHODS["rtn"].run),
            )
            if smooth and found.s is not None:
                folded = apply_fold(group, found.s, made.weights, made.vectors, {})
                made = made.with_tensors(folded.weights, folded.vectors)
        logits = made.logits_of("int8:row")
        return np.square(logits - exact).mean() / np.square(exact).mean()

    assert loss(smooth=True) < 0.5 * loss(smooth=False)


def test_names_of_methods():
    assert method("awq").run is METHODS["rtn:clip"].run
    assert method("smoothquant").run is METHODS["rtn"].run
    assert method("awq+gptq").run is METHODS["gptq"].run
    assert method("awq+gptq+refit").run is METHODS["gptq+refit"].run
    after = [name for name, found in METHODS.items() if not found.fisher]
    assert all(method(f"{rewrite}+{name}").rewrite is REWRITES[rewrite][0] for rewrite in REWRITES for name in after)
    assert all(method(name).calibrated for name in ("awq", "smoothquant", "awq+rtn", "smoothquant+hqq"))
    for wrong in ("awq+", "awq+awq", "awq+smoothquant", "gptq+awq", "smoothquant+", "+awq", "awq+nothing"):
        assert not is_method(wrong)
    with pytest.raises(UsageError, match="'awq\\+gptqq' is no known method") as refused:
        method("awq+gptqq")
    assert "awq+gptq" in refused.value.hint
