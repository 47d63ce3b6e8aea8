"""Lowering beside float64: torch's convolutions, rounded exactly, within the bound of each operation."""

from dataclasses import replace

import nets
import numpy as np
import pytest

from scrimp.errors import Refused
from scrimp.formats.rounding import to_numbers
from scrimp.integer import requantize
from scrimp.integer.lower import lower
from scrimp.integer.program import AvgPool, MaxPool, Product, check, inputs_of, largest_sum
from scrimp.integer.reference import from_bytes, run, step
from scrimp.models.cnn import Image, Net, Node
from scrimp.tensors import encode

torch = pytest.importorskip("torch")
U = 2.0**-53


def exact_weight(tensor):
    return to_numbers(tensor.format.element, tensor.codes()).astype(np.float64) * tensor.row_scales()


def in_float64(node, tensors, x, shape):
    """The values of one operation, and the sum of its magnitudes, both before steps out; channels last."""
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    if node.kind == "avg_pool":
        return tuple(torch.nn.functional.avg_pool2d(i, node.kernel, node.stride).permute(0, 2, 3, 1).numpy()
                     for i in (images, images.abs()))  # fmt: skip
    weight = exact_weight(tensors[f"{node.name}.weight"])
    kernel = (shape.height, shape.width) if node.kind == "linear" else (node.kernel, node.kernel)
    kernels = torch.from_numpy(weight.reshape(len(weight), *kernel, -1)).permute(0, 3, 1, 2)
    gain, bias = (tensors[f"{node.name}.{kind}"].astype(np.float64) for kind in ("gain", "bias"))
    found = []
    for i, w, g, b in ((images, kernels, gain, bias), (images.abs(), kernels.abs(), abs(gain), abs(bias))):
        made = torch.nn.functional.conv2d(i, w, stride=node.stride, padding=node.padding, groups=node.groups)
        found.append(made.permute(0, 2, 3, 1).numpy() * g + b)
    return tuple(found)


def steps_of(net, tensors):
    steps = {"input": net.pixels.step}
    for node in net.nodes:
        source = steps[node.inputs[0]]
        steps[node.name] = source if node.kind == "max_pool" else float(tensors.get(f"{node.name}.step", [1])[0])
    return steps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("net", [nets.RESIDUAL, nets.PLAIN], ids=["residual", "plain"])
def test_every_operation_is_its_float64_rounded_within_the_bound(net, seed):
    tensors = nets.tensors_of(net, seed, nets.FORMATS[seed:] + nets.FORMATS[:seed])
    program, shapes, steps = lower(net, tensors), net.shapes(), steps_of(net, tensors)
    codes = {0: from_bytes(nets.pictures_for(net, 20, seed), net.pixels)}
    seen = 0
    for node, op in zip(net.nodes, program.ops, strict=True):
        inputs = [codes[index] for index in inputs_of(op)]
        codes[op.output] = made = step(op, inputs)
        if node is net.nodes[-1] or isinstance(op, MaxPool):
            continue
        values = [x * steps[name] for x, name in zip(inputs, node.inputs, strict=True)]
        if node.kind == "add":
            exact, size, off = sum(values), sum(map(abs, values)), 128 * 2.0**-op.shift
            assert off < 2.0**-10
            low = op.low
        else:
            exact, size = in_float64(node, tensors, values[0], shapes[node.inputs[0]])
            off, low = bound_of(node, op, tensors, steps), op.requantize.low
        assert low == (0 if node.relu else -128)
        out = steps[node.name]
        slack = off + 8 * (inputs[0].size + 8) * U * size / out  # float64 itself, of both sides
        below, above = np.floor(exact / out - slack + 0.5), np.floor(exact / out + slack + 0.5)
        assert (np.clip(below, low, 127) <= made).all()
        assert (made <= np.clip(above, low, 127)).all()
        assert np.unique(made).size > 20
        seen += np.count_nonzero(below == above) / made.size > 0.9
    assert seen >= len(net.nodes) - 3


def bound_of(node, op, tensors, steps):
    """The derived bound, in codes, of values computed here; and it is as small as is claimed."""
    out, source = steps[node.name], steps[node.inputs[0]]
    if isinstance(op, AvgPool):
        factor, bias, largest = np.array([source / node.kernel**2 / out]), np.zeros(1), node.kernel**2 * 128
    else:
        weight = exact_weight(tensors[f"{node.name}.weight"])
        per_one = np.array([max(abs(w)) / max(abs(i.astype(float))) for w, i in zip(weight, op.weight, strict=True)])
        sign = np.sign(np.where(abs(weight) > 0, weight * op.weight, 0).sum(axis=1))
        factor = tensors[f"{node.name}.gain"] * (per_one * sign) * source / out
        bias, largest = tensors[f"{node.name}.bias"].astype(np.float64) / out, largest_sum(op.weight)
    off = requantize.error(op.requantize, factor, bias, largest)
    assert off.max() < 2.0**-14 * ((abs(factor) * largest + abs(bias)).max() + 1)
    return off


@pytest.mark.parametrize("net", [nets.RESIDUAL, nets.PLAIN], ids=["residual", "plain"])
def test_logits_are_the_values_of_all_classes_in_one_unit(net):
    tensors = nets.tensors_of(net)
    program, node = lower(net, tensors), net.nodes[-1]
    last = program.ops[-1]
    assert isinstance(last, Product)
    codes = {0: from_bytes(nets.pictures_for(net, 50), net.pixels)}
    for op in program.ops:
        codes[op.output] = step(op, [codes[index] for index in inputs_of(op)])
    x = codes[last.input] * steps_of(net, tensors)[node.inputs[0]]
    exact, _ = in_float64(node, tensors, x, net.shapes()[node.inputs[0]])
    logits = codes[last.output].astype(np.float64)
    bits = np.round(np.log2((logits * exact).sum() / (exact**2).sum()))
    off = abs(np.ldexp(logits, -int(bits)) - exact).max()
    most = (abs(exact_weight(tensors[f"{node.name}.weight"])).sum(axis=1) * abs(x).max() * 2).max()
    assert off < 2.0**-14 * (most + 1)
    assert abs(logits).max() > 2**24, "bits of int32 are left unused"


def test_logits_keep_all_bits_whatever_the_size_of_the_gain():
    tensors = nets.tensors_of(nets.PLAIN)
    logits = run(lower(nets.PLAIN, tensors), nets.pictures_for(nets.PLAIN, 10))
    for factor in (2.0**-40, 2.0**40):
        scaled = tensors | {name: tensors[name] * np.float32(factor) for name in ("l.gain", "l.bias")}
        np.testing.assert_array_equal(run(lower(nets.PLAIN, scaled), nets.pictures_for(nets.PLAIN, 10)), logits)


def test_powers_of_two_lower_exactly():
    """Nothing is rounded but the codes themselves, half upwards."""
    net = Net(
        Image(2, 2, 1), nets.GREY, (Node("a", "linear", ("input",), outputs=2), Node("l", "linear", ("a",), outputs=1))
    )
    ones = encode(np.float32([[1, 1, 1, 1], [1, -1, 1, -1]]), "ternary:tensor")
    both = encode(np.float32([[1, 1]]), "binary:tensor")
    one = {"l.weight": both} | {name: np.ones(1, np.float32) for name in ("l.gain", "l.bias")}
    tensors = {"a.weight": ones, "a.gain": np.ones(2, np.float32), "a.bias": np.zeros(2, np.float32),
               "a.step": np.float32([4 / 128]), **one}  # fmt: skip
    (first, _) = (program := lower(net, tensors)).ops
    x = np.random.default_rng(0).integers(-128, 128, (500, 2, 2, 1)).astype(np.int8)
    flat = x.reshape(500, 4).astype(np.int64)
    expected = np.stack([flat.sum(axis=1), flat @ [1, -1, 1, -1]], axis=1)
    np.testing.assert_array_equal(step(first, [x]).reshape(500, 2), np.clip((expected + 2) >> 2, -128, 127))
    check(program)


def test_lowering_gives_the_same_bits_each_time():
    first, second = (lower(nets.RESIDUAL, nets.tensors_of(nets.RESIDUAL)) for _ in range(2))
    for a, b in zip(first.ops, second.ops, strict=True):
        if isinstance(a, Product):
            np.testing.assert_array_equal(a.requantize.multiplier, b.requantize.multiplier)
            np.testing.assert_array_equal(a.requantize.offset, b.requantize.offset)


@pytest.mark.parametrize(
    ("format", "element"),
    [
        ("ternary:row", "ternary"), ("ternary2:tensor", "ternary"), ("binary:row", "binary"), ("int2:row", "int2"),
        ("int3:row@f32", "int3"), ("int4:row@e8m0", "int4"), ("int8:tensor", "int8"), ("quaternary:row", "int3"),
        ("int2r:row", "ternary"), ("iq4nl:row", "int8"), ("uint4:row", "int5"), ("fp4_e2m1:row", "int5"),
        ("int4:g64", "int4"), ("fixed6.4", "int6"), ("mxfp4", "int5"),
    ],
)  # fmt: skip
def test_formats_of_integers_lower(format, element):
    """PLAIN's first layer has 20 inputs: a group of 32 or 64 is a row."""
    tensors = nets.tensors_of(nets.PLAIN, formats=(format, "int8:row"))
    op = lower(nets.PLAIN, tensors).ops[0]
    assert isinstance(op, Product)
    assert op.element == element
    tensor = tensors["h.weight"]
    weight = tensor.dequantize().astype(np.float64)
    scales = (weight * op.weight).sum(axis=1) / np.maximum(1, (op.weight.astype(float) ** 2).sum(axis=1))
    np.testing.assert_allclose(op.weight * scales[:, None], weight, rtol=0, atol=2.0**-23 * abs(weight).max())


@pytest.mark.parametrize(
    ("format", "words"),
    [
        ("int4:g32", "6 scales in a row of 180"), ("int4z:row", "mins"), ("f32", "floats"), ("bf16", "floats"),
        ("nf4:row", "levels"), ("fp8_e4m3:row", "levels"), ("uint8:row", "levels"), ("int16:row", "levels"),
        ("kmeans4:row", "levels"), ("smx9", "12 scales"), ("q4_k", "mins"), ("lns8:row", "levels"),
    ],
)  # fmt: skip
def test_formats_that_do_not_lower_are_refused_by_name(format, words):
    wide = replace(nets.PLAIN, image=Image(12, 15, 1))
    with pytest.raises(Refused, match=rf"h\.weight.*{words}") as refused:
        lower(wide, nets.tensors_of(wide, formats=(format, "int8:row")))
    assert "one scale per row or tensor" in str(refused.value.hint)


def test_a_learned_codebook_of_integers_lowers():
    tensors = nets.tensors_of(nets.PLAIN, formats=("kmeans2:row", "int8:row"))
    levels = np.float32([-3, -0.5, 0.5, 3])
    whole = replace(tensors["h.weight"], extra={"codebook": levels})
    op = lower(nets.PLAIN, tensors | {"h.weight": whole}).ops[0]
    np.testing.assert_array_equal(op.weight, np.array([-6, -1, 1, 6]).take(whole.codes()))
    assert op.element == "int4"


@pytest.mark.parametrize("kind", ["step", "gain", "bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.5])
def test_numbers_that_mean_nothing_are_refused_by_name(kind, value):
    tensors = nets.tensors_of(nets.PLAIN)
    tensors[f"h.{kind}"] = tensors[f"h.{kind}"].copy()
    tensors[f"h.{kind}"][0] = value
    if np.isfinite(value) and kind != "step":
        check(lower(nets.PLAIN, tensors))  # a channel without gain, or with a negative one, is a channel
        return
    with pytest.raises(Refused, match=rf"h\.{kind}"):
        lower(nets.PLAIN, tensors)


def test_what_no_32_bits_hold_is_refused():
    tensors = nets.tensors_of(nets.PLAIN)
    with pytest.raises(Refused, match="h makes values"):
        lower(nets.PLAIN, tensors | {"h.step": np.float32([1e-30])})
    added = nets.tensors_of(nets.RESIDUAL)
    with pytest.raises(Refused, match="s adds steps"):
        lower(nets.RESIDUAL, added | {"s.step": np.float32([1e-30])})


def test_logits_with_a_relu_are_refused():
    nodes = (nets.PLAIN.nodes[0], replace(nets.PLAIN.nodes[1], relu=True))
    with pytest.raises(Refused, match="l makes the logits and has a relu"):
        lower(replace(nets.PLAIN, nodes=nodes), nets.tensors_of(nets.PLAIN))


def test_a_product_that_leaves_32_bits_is_refused():
    wide = Net(Image(1, 1 << 16, 3), nets.GREY, (Node("l", "linear", ("input",), outputs=1),))
    tensors = {"l.weight": encode(np.ones((1, 3 << 16), np.float32), "int8:row"), "l.gain": np.ones(1, np.float32),
               "l.bias": np.zeros(1, np.float32)}  # fmt: skip
    with pytest.raises(Refused, match="l has sums of"):
        lower(wide, tensors)
