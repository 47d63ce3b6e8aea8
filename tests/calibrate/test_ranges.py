"""Ranges of activations: histograms against the numbers themselves, rules against definitions, stores with them."""

import json

import numpy as np
import pytest
from networks import write_network

import scrimp
from scrimp import models
from scrimp.calibrate.ranges import LIMIT, RULES, SHARE, Histogram, measure, scales_of
from scrimp.engine import Engine, pick_isa
from scrimp.errors import Refused, UsageError
from scrimp.quantize import compress as compressing
from scrimp.quantize.ranges import measure_ranges
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source


def heavy_tailed(seed=0, count=60_000):
    """Student's t with 3 degrees of freedom: a few numbers are far beyond the others, as activations are."""
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


def histogram(x, pieces=3):
    seen = Histogram()
    for piece in np.array_split(x, pieces):
        seen.add(piece)
    return seen


def squared_error(x, scale):
    """Of x as int8 codes, number by number."""
    q = np.clip(np.rint(x / np.float32(scale)), -LIMIT, LIMIT)
    return float(np.square(x - np.float64(np.float32(scale)) * q, dtype=np.float64).sum())


def test_a_histogram_does_not_depend_on_how_numbers_come():
    x = heavy_tailed()
    one, many = histogram(x, 1), histogram(x[::-1], 7)
    assert np.array_equal(one.counts, many.counts)
    assert one.peak == many.peak == np.abs(x).max()
    assert one.counts.sum() == x.size


def test_absmax_saturates_nothing():
    x = heavy_tailed()
    assert RULES["absmax"](histogram(x)) == float(np.abs(x).max()) / 127


def test_percentile_is_within_a_bin_of_the_quantile():
    for seed in range(5):
        x = heavy_tailed(seed)
        exact = np.sort(np.abs(x))[int(np.ceil(SHARE * x.size)) - 1]
        clip = RULES["percentile"](histogram(x)) * LIMIT
        assert exact * (1 - 2.0**-20) <= clip <= exact * (1 + 2.0**-7) * (1 + 2.0**-20)


def test_mse_has_the_least_of_what_it_promises():
    """Its formula, summed number by number over the middles of the bins, for every candidate there is."""
    x = heavy_tailed()
    bits = (np.abs(x).view(np.uint32) >> 16) << 16
    middle = (bits.view(np.float32).astype(np.float64) + (bits + (1 << 16)).view(np.float32)) / 2

    def promised(scale):
        zero, beyond = middle < scale / 2, middle > LIMIT * scale
        rounded = scale**2 / 12 * np.count_nonzero(~zero & ~beyond)
        return (middle[zero] ** 2).sum() + rounded + ((middle[beyond] - LIMIT * scale) ** 2).sum()

    found = RULES["mse"](histogram(x))
    edges = np.unique(bits).view(np.float32).astype(np.float64)
    best = min(promised(edge / LIMIT) for edge in edges[edges > np.abs(x).max() / 2**12])
    assert promised(found) <= best * (1 + 1e-9)  # sums of 60,000 float64 in another order


@pytest.mark.parametrize("seed", range(3))
def test_mse_loses_least_where_tails_are_heavy(seed):
    x = heavy_tailed(seed)
    errors = {rule: squared_error(x, find(histogram(x))) for rule, find in RULES.items()}
    assert errors["mse"] == min(errors.values())


@pytest.mark.parametrize("rule", RULES)
def test_zeros_have_a_scale(rule):
    assert scales_of({"w": histogram(np.zeros(10, np.float32))}, rule) == {"w": float(np.float32(1 / 127))}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [1e-44, 3e-37, 1.0, 1e30])
def test_one_number_is_its_own_range(rule, size):
    seen = {"w": histogram(np.full(5, -size, np.float32))}
    if size < 1e-40:
        with pytest.raises(Refused, match="which no scale of int8 fits"):
            scales_of(seen, rule)
    elif size > 1e-36:
        scale = scales_of(seen, rule)["w"]
        assert abs(LIMIT * scale - size) <= size * 2.0**-6


def test_infinite_and_nan_are_seen():
    for bad in (np.inf, -np.inf, np.nan):
        assert not histogram(np.array([1, bad, 2], np.float32), 1).finite
    assert histogram(heavy_tailed()).finite


def test_what_products_read_is_what_a_whole_engine_taps(network):
    windows = np.random.default_rng(0).integers(0, 50, (3, 16)).astype(np.int32)
    with open_source(network) as source:
        _, program = models.build(source.config)
        matrices = {name: source.read(name) for name in program.matrices}
        vectors = {name: np.asarray(source.read(name)) for name in program.vectors}
        seen = measure(program, source.read, vectors, windows)
    engine = Engine(program, matrices, vectors, context=16, threads=1, isa=pick_isa(), arithmetic="f32")
    products = [op for op in program.ops if op.kind == "linear"]
    taps = sorted({op.inputs[0] for op in products})
    runs = [engine.run(tokens, 0, 0, len(program.ops), outputs=taps) for tokens in windows]
    for op in products:
        direct = histogram(np.concatenate([run[op.inputs[0]].ravel() for run in runs]))
        for name in op.weights:
            assert np.array_equal(seen[name].counts, direct.counts), name
            assert seen[name].peak == direct.peak
    assert set(seen) == {name for op in products for name in op.weights}


@pytest.fixture
def static(network, text, tmp_path):
    out = tmp_path / "static"
    report = scrimp.compress(network, out, format="int8:g32", activations="static:mse", calibrate=text)
    return out, report


def test_a_store_with_ranges_runs_with_them(static):
    out, report = static
    assert any("fixed scale for each input (mse)" in note for note in report.notes)
    with scrimp.open(out) as fixed, scrimp.open(out, arithmetic="int8") as dynamic:
        assert (fixed.arithmetic, dynamic.arithmetic) == ("int8-static", "int8")
        a, b = fixed.logits([1, 2, 3, 4]), dynamic.logits([1, 2, 3, 4])
        assert not np.array_equal(a, b)
        assert np.abs(a - b).max() < np.abs(b).max()
        every = {name for op in fixed.program.ops if op.kind == "linear" for name in op.weights}
        assert set(fixed.source.input_scales) == every


def test_a_product_is_within_the_bound_of_its_codes(static, isa):
    """y = W (s q) with W as stored: K products in float32 in any order, two roundings for the scales."""
    out, _ = static
    with scrimp.open(out, isa=isa) as model:
        ops = model.program.ops
        at = next(i for i, op in enumerate(ops) if op.kind == "linear" and len(op.weights) == 1)
        op = ops[at]
        taps = model.engine.run(np.arange(9, dtype=np.int32), 0, 0, at + 1, outputs=[op.inputs[0], op.outputs[0]])
        x, y = taps[op.inputs[0]], taps[op.outputs[0]]
        scale = np.float32(model.source.input_scales[op.weights[0]])
        q = np.clip(np.rint(x / scale), -127, 127)
        w = model.source.read(op.weights[0]).dequantize().astype(np.float64)
        exact, size = (np.float64(scale) * a @ b.T for a, b in ((q, w), (np.abs(q), np.abs(w))))
        n = w.shape[1] + 4
        gamma = n * 2.0**-24 / (1 - n * 2.0**-24)
        assert np.all(np.abs(y - exact) <= gamma * size)


def test_tokens_alone_and_together_give_the_same_bits(static):
    out, _ = static
    with scrimp.open(out) as model:
        together = model.logits(list(range(10)))
        assert np.array_equal(np.stack([model.step([t], t) for t in range(10)]), together)


def test_an_attempt_cut_off_while_ranges_are_measured_goes_on(static, network, text, tmp_path, monkeypatch):
    again = tmp_path / "again"
    how = {"format": "int8:g32", "activations": "static:mse", "calibrate": text}

    def cut_off(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(compressing, "measure_ranges", cut_off)
    with pytest.raises(KeyboardInterrupt):
        scrimp.compress(network, again, **how)
    assert not again.exists()
    monkeypatch.setattr(compressing, "measure_ranges", measure_ranges)
    assert scrimp.compress(network, again, **how).resumed > 0
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (static[0] / name).read_bytes()


def test_the_predicted_size_counts_the_scales(static, network, text):
    from scrimp.quantize.job import prepare

    job = prepare(network, Wish(format="int8:g32", activations="static:mse", calibrate=text))
    with job.source:
        predicted = job.predict().file_bytes
    assert 0 <= predicted - static[1].file_bytes < 8000  # room for the record of a loss and of a calibration


@pytest.mark.parametrize("wrong", ["static:", "static:median", "fixed", "dynamic:mse", ""])
def test_another_word_is_a_usage_error(wrong):
    if wrong == "static:":
        assert Wish(keep=True, activations=wrong).range_rule == "absmax"
        return
    with pytest.raises(UsageError, match="no way to quantize activations"):
        Wish(keep=True, activations=wrong)


def test_without_a_tokenizer_it_is_refused(tmp_path):
    bare = write_network(tmp_path / "bare", tokenizer=False)
    with pytest.raises(Refused, match="no tokenizer"):
        scrimp.compress(bare, tmp_path / "out", format="int8:g32", activations="static")
    assert not (tmp_path / "out").exists()


def test_static_arithmetic_wants_ranges(network):
    with pytest.raises(UsageError, match="brings no ranges"):
        scrimp.open(network, arithmetic="int8-static")


Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("scale", "message"),
    [(0.0, "is no scale"), (-0.5, "is no scale"), (float("nan"), "is no scale"), (float("inf"), "is no scale"),
     (1e-40, "is no scale"), (1e38, "is no scale"), (0.1, "is no scale"), ("0.5", "is no scale"), (1, "is no scale"),
     (None, "is no scale"), (True, "is no scale"), ([0.5], "is no scale"), (0.5, "with different scales")],
)  # fmt: skip
def test_a_hostile_scale_is_refused(static, scale, message):
    def put(scales):
        scales[Q] = scale

    refused(static[0], put, message)


def test_missing_and_foreign_scales_are_refused(static):
    out, _ = static
    refused(out, lambda scales: scales.pop(Q), "is without a scale of its inputs")
    refused(out, lambda scales: scales.update({"model.norm.weight": 0.5, Q: 0.5}), "is no matrix that multiplies")


@pytest.mark.parametrize("declared", [3, [], "mse", {}, {"rule": "mse"}, {"scales": []}, {"scales": 1.0}])
def test_ranges_of_another_shape_are_refused(static, declared):
    path = static[0] / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["activations"] = declared
    path.write_text(json.dumps(config))
    with pytest.raises(Refused, match="have no scales"):
        open_source(static[0])


def refused(out, edit, message):
    path = out / "config.json"
    config = json.loads(path.read_text())
    edit(config["quantization_config"]["activations"]["scales"])
    path.write_text(json.dumps(config))
    with pytest.raises(Refused, match=message):
        open_source(out)
