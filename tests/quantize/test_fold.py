"""A folded network is the same network: bit for bit where its factors are powers of two, else within a bound."""

import numpy as np
import pytest
from folded_networks import KINDS, network
from layers import of_inputs, weights

from scrimp.errors import UsageError
from scrimp.program import Program
from scrimp.quantize.fold import apply_fold, fold_groups, of_maker, shared

#: Unit roundoff of float32.
U = 2.0**-24


@pytest.fixture(params=KINDS, ids=str)
def net(request):
    return network(**KINDS[request.param])


def factors(group, seed=0, spread=2.0):
    return np.exp2(np.random.default_rng(seed).uniform(-spread, spread, group.width)).astype(np.float32)


def powers_of_two(group, seed):
    """Equal in the heads that share a key head, so that their mean is one too."""
    made = np.random.default_rng(seed).integers(-3, 4, group.width // group.repeats)
    exponents = made if group.repeats == 1 else np.repeat(
        made.reshape(-1, 1, group.head_dim), group.repeats, axis=1).reshape(-1)  # fmt: skip
    return np.exp2(exponents).astype(np.float32)


def folded(net, group, s):
    found = apply_fold(group, s, net.weights, net.vectors, {})
    return net.with_tensors(found.weights, found.vectors)


def test_every_layer_of_the_body_is_in_a_group(net):
    groups, refused = fold_groups(net.program)
    tied = "lm_head.weight" not in net.weights
    assert len(groups) == 2 * 4 + (not tied)
    linear = {name for op in net.program.ops if op.kind == "linear" for name in op.weights}
    readers = [name for group in groups for name in group.readers]
    assert len(readers) == len(set(readers))
    assert linear - set(readers) == ({"model.embed_tokens.weight"} if tied else set())
    assert len(refused) == tied
    assert all(why == "model.embed_tokens.weight is used in more than one place" for why in refused.values())


def test_powers_of_two_change_no_bit_of_the_logits(net):
    groups, _ = fold_groups(net.program)
    changed = net
    for seed, group in enumerate(groups):
        changed = folded(changed, group, powers_of_two(group, seed))
    assert all((changed.weights[name] != net.weights[name]).any() for group in groups for name in group.readers)
    assert (changed.logits() == net.logits()).all()


def test_any_factors_leave_the_network_in_exact_arithmetic(net):
    """In float64 by another executor: what is left are its roundings, not those of float32 (2^-24 = 6e-8)."""
    groups, _ = fold_groups(net.program)
    wide = net.in_float64()
    changed = wide
    for seed, group in enumerate(groups):
        changed = folded(changed, group, factors(group, seed))
    expected, found = wide.exact_logits(), changed.exact_logits()
    assert np.abs(found - expected).max() < 1e-11 * np.abs(expected).max()
    assert np.abs(expected - net.logits()).max() < 1e-4 * np.abs(expected).max()  # it is the network of the engine


def test_every_number_that_changes_is_rounded_once(net):
    for group in fold_groups(net.program)[0]:
        s = shared(group, factors(group))
        found = apply_fold(group, s, net.weights, net.vectors, {})
        columns, rows = s.astype(np.float64), of_maker(group, s).astype(np.float64)
        for name, weight in net.weights.items():
            exact = weight.astype(np.float64)
            exact = exact * columns if name in group.readers else exact
            exact = exact / rows[:, None] if name == group.rows else exact
            assert (np.abs(found.weights[name] - exact) <= U * np.abs(exact)).all()
            assert name in group.tensors or found.weights[name] is weight
        for name, vector in net.vectors.items():
            exact = vector.astype(np.float64) / (rows if name in group.vectors else 1)
            assert (np.abs(found.vectors[name] - exact) <= U * np.abs(exact)).all()


def test_statistics_are_those_of_the_divided_inputs():
    (group,) = [g for g in fold_groups(network().program)[0] if g.readers == ("model.layers.1.mlp.down_proj.weight",)]
    x, s = np.random.default_rng(2).standard_normal((300, 96)).astype(np.float32), factors(group)
    name = group.readers[0]
    found = apply_fold(group, s, {}, {}, {name: of_inputs(x), "another": (other := of_inputs(x))}).statistics
    expected = of_inputs((x.astype(np.float64) / s).astype(np.float32))
    size = np.abs(x / s).T.astype(np.float64) @ np.abs(x / s)
    assert (np.abs(found[name].moments - expected.moments) <= 8 * U * size).all()
    for part in ("mean", "magnitude", "peak"):
        assert np.allclose(getattr(found[name], part), getattr(expected, part), rtol=1e-5, atol=1e-6)
    assert found["another"] is other


def test_readers_of_one_buffer_keep_one_object_of_statistics():
    net = network()
    group = fold_groups(net.program)[0][0]
    whole = of_inputs(weights(100, 64))
    found = apply_fold(group, factors(group), {}, {}, dict.fromkeys(group.readers, whole)).statistics
    assert len({id(found[name]) for name in group.readers}) == 1


def test_the_heads_of_a_key_head_share_their_factors():
    group = fold_groups(network().program)[0][1]
    assert (group.repeats, group.head_dim) == (4, 8)
    s = factors(group)
    heads = shared(group, s).reshape(2, 4, 8)
    assert (heads == heads[:, :1]).all()
    assert np.allclose(heads[:, 0], np.prod(s.reshape(2, 4, 8), axis=1) ** 0.25)
    assert shared(group, heads.reshape(-1)) == pytest.approx(heads.reshape(-1), rel=4 * U)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_factors_that_are_no_positive_numbers_are_refused(value):
    group = fold_groups(network().program)[0][0]
    s = factors(group)
    s[3] = value
    with pytest.raises(UsageError, match="has 64 inputs: they are scaled by as many positive numbers"):
        shared(group, s)
    with pytest.raises(UsageError, match="positive numbers"):
        apply_fold(group, s[:5], {}, {}, {})


def small_program(build):
    p = Program({"embedding": (50, 16), "a": (16, 16), "b": (16, 16), "c": (16, 16)}, {"norm": 16})
    p.output = build(p, p.embed("embedding")).index
    return p


def no_norm(p, x):
    return p.linear(x, "a")[0]


def a_norm_that_is_also_added(p, x):
    h = p.rms_norm(x, "norm", 1e-5)
    return p.add(h, *p.linear(h, "a"))


def a_norm_used_twice(p, x):
    h = p.rms_norm(x, "norm", 1e-5)
    return p.linear(p.rms_norm(p.linear(h, "a")[0], "norm", 1e-5), "b")[0]


def a_factor_that_is_also_added(p, x):
    gate, up = p.linear(p.rms_norm(x, "norm", 1e-5), "a", "b")
    return p.add(up, *p.linear(p.activation("silu", gate, up), "c"))


def a_gate_that_is_its_own_factor(p, x):
    (gate,) = p.linear(p.rms_norm(x, "norm", 1e-5), "a")
    return p.linear(p.activation("silu", gate, gate), "c")[0]


def a_matrix_used_twice(p, x):
    gate, up = p.linear(p.rms_norm(x, "norm", 1e-5), "a", "b")
    return p.linear(p.activation("silu", gate, up), "b")[0]


@pytest.mark.parametrize(
    ("build", "foldable", "says"),
    [
        (no_norm, [], ["their inputs come from 'embed', which has nothing that could be divided beforehand"]),
        (a_norm_that_is_also_added, [], ["something other than linear layers reads what a reads"]),
        (a_norm_used_twice, [], ["norm is used in more than one place"] * 2),
        (
            a_factor_that_is_also_added,
            [("a", "b")],
            ["what 'activation' multiplies with is not a linear layer's output"],
        ),
        (a_gate_that_is_its_own_factor, [("a",)], ["what 'activation' multiplies with is not a linear layer's output"]),
        (a_matrix_used_twice, [], ["b is used in more than one place"] * 2),
    ],
)
def test_what_cannot_be_folded_is_left_and_said(build, foldable, says):
    groups, refused = fold_groups(small_program(build))
    assert [group.readers for group in groups] == foldable
    assert len(refused) == len(says)
    assert all(part in sentence for part, sentence in zip(says, refused.values(), strict=True))


def test_a_norm_read_by_two_linear_operations_is_one_group():
    def build(p, x):
        h = p.rms_norm(x, "norm", 1e-5)
        return p.add(*p.linear(h, "a"), *p.linear(h, "b"))

    (group,), refused = fold_groups(small_program(build))
    assert group.readers == ("a", "b")
    assert not refused
