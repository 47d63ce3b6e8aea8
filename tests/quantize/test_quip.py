"""Rotated, rounded and rotated back: the same layer, judged where its inputs are."""

import numpy as np
import pytest
from layers import assert_same, statistics, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.models.hadamard import rotate
from scrimp.models.sidecars import Rotation
from scrimp.quantize.decoded import decode
from scrimp.quantize.methods import method
from scrimp.quantize.objective import row_errors
from scrimp.quantize.quip import SEED, turn, turned_statistics

INT3 = parse("int3:g32")
ROTATIONS = [Rotation(SEED), Rotation(SEED, 4, 1), Rotation(SEED, 1, 3), Rotation(SEED, 2, 6)]


def named(rotation, first):
    return method(f"quip:{rotation.inputs}x{rotation.outputs}+{first}")


@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_turning_there_and_back_gives_the_weight(rotation):
    weight = weights(24, 40)
    back = turn(turn(weight, rotation).astype(np.float64), rotation, inverse=True)
    # once rounded to float32, seen through two orthogonal matrices; and rounded again
    assert np.linalg.norm(back - weight) <= 2 * 2.0**-24 * np.linalg.norm(weight)


@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_the_error_under_the_rotated_moments_is_the_layers_own(rotation):
    """tr(D' H' D'ᵀ) = tr(D H Dᵀ): what the inner method makes small is what the layer puts out."""
    difference, seen = weights(24, 40).astype(np.float64), statistics(40)
    turned = turned_statistics(seen, difference, rotation)
    after = row_errors(turn(difference, rotation).astype(np.float64), turned.moments).sum()
    assert after == pytest.approx(row_errors(difference, seen.moments).sum(), rel=1e-5)


@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_the_moments_are_those_of_rotated_inputs(rotation):
    x = np.random.default_rng(3).standard_normal((300, 40)).astype(np.float32)
    seen = statistics(40)
    seen.moments[:] = x.astype(np.float64).T @ x
    turned = rotate(x, SEED, stretches=rotation.inputs)
    assert np.abs(turned_statistics(seen, weights(24, 40), rotation).moments - turned.T @ turned).max() <= 1e-9


@pytest.mark.parametrize("first", ["rtn", "gptq", "gptq+refit"])
@pytest.mark.parametrize("rotation", ROTATIONS, ids=str)
def test_it_is_the_inner_method_on_the_rotated_layer(rotation, first):
    weight, seen = weights(24, 40), statistics(40)
    made = named(rotation, first).run(weight, INT3, seen)
    inner = method(first)(turn(weight, rotation), INT3, turned_statistics(seen, weight, rotation))
    assert_same(made.tensor, inner)
    assert np.array_equal(made.beside["rotation"], np.float32(rotation.values))
    x = np.random.default_rng(1).standard_normal((5, 40))
    run = rotate(rotate(x, SEED, stretches=rotation.inputs) @ decode(inner).T, SEED, stretches=rotation.outputs,
                 inverse=True)  # fmt: skip
    stands_for = x @ made.effective.T.astype(np.float64)
    assert np.abs(run - stands_for).max() <= 2.0**-22 * np.abs(x).sum(axis=1).max() * np.abs(made.effective).max()


def test_quip_alone_rounds_with_ldlq():
    weight, seen = weights(24, 40), statistics(40)
    assert_same(method("quip")(weight, INT3, seen), method("quip+gptq")(weight, INT3, seen))


def test_a_weight_with_one_huge_number_is_better_off_rotated():
    """What incoherence is for: at 3 bits a spike spoils its group's scale, and rotated it is spread over all."""
    weight, seen = weights(64, 128), statistics(128)
    weight[::5, 7] = 3.0
    row, turned = parse("int3:row"), method("quip+rtn").run(weight, parse("int3:row"), seen).effective
    plain = decode(method("rtn:absmax")(weight, row))
    assert np.linalg.norm(weight - turned) < 0.7 * np.linalg.norm(weight - plain)


def test_stretches_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match="24 × 40 is not cut evenly into 5 and 3"):
        method("quip:3x5").run(weights(24, 40), INT3, statistics(40))
