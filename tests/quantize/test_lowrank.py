"""The low-rank side-car is the optimum that NumPy's SVD finds, never hurts, and at full rank leaves nothing over."""

from itertools import pairwise

import numpy as np
import pytest
from layers import statistics, weights

from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.quantize import lowrank
from scrimp.quantize.decoded import decode
from scrimp.quantize.methods import method
from scrimp.quantize.objective import row_errors

SHAPES = [(24, 40), (40, 24), (32, 32)]
INT3 = parse("int3:g32")


def error(difference, moments):
    return float(row_errors(difference, moments).sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rank", [1, 4, 23])
def test_the_subspace_is_that_of_the_svd_in_the_metric_of_h(shape, rank):
    residual, moments = weights(*shape).astype(np.float64), statistics(shape[1]).moments
    values, vectors = np.linalg.eigh(moments)
    root = vectors * np.sqrt(values) @ vectors.T
    singular = np.linalg.svd(residual @ root, compute_uv=False)
    basis = lowrank.strongest(residual, moments, rank)
    assert np.abs(basis.T @ basis - np.eye(rank)).max() <= 1e-12
    left = error(residual - basis @ (basis.T @ residual), moments)
    # Eckart and Young: no matrix of this rank leaves less than the other singular values
    assert left == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_at_full_rank_only_the_storage_of_the_side_car_is_left(shape):
    weight, rank = weights(*shape), min(shape)
    made = method(f"lowrank:{rank}+rtn").run(weight, INT3, statistics(shape[1]))
    a, b = made.beside["lowrank_a"], made.beside["lowrank_b"]
    half_steps = np.repeat(a.row_scales(), a.format.group(shape[1]), axis=1)[:, : shape[1]] / 2
    product = decode(b).astype(np.float64) @ decode(a)
    apart = np.abs(weight - decode(made.tensor).astype(np.float64) - product)
    residual = np.abs(weight - decode(made.tensor)).max()
    if shape[0] <= shape[1]:  # B spans everything, so that A's rounding is all: half a step, seen through B
        assert np.all(apart <= np.abs(decode(b)) @ half_steps + 1e-5 * residual)
    assert error(apart, statistics(shape[1]).moments) < 1e-3 * error(
        weight - decode(method("rtn")(weight, INT3)), statistics(shape[1]).moments
    )


@pytest.mark.parametrize("first", ["rtn", "gptq"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_more_rank_is_less_error(first, shape):
    weight, seen = weights(*shape), statistics(shape[1])
    found = [error(weight - decode(method(first)(weight, INT3, seen)), seen.moments)]
    for rank in (1, 2, 4, 8, 16, 24):
        made = method(f"lowrank:{rank}+{first}").run(weight, INT3, seen)
        found.append(error(weight - made.effective, seen.moments))
    assert all(after < before for before, after in pairwise(found))


def test_what_it_stands_for_is_what_is_stored():
    weight, seen = weights(40, 24), statistics(24)
    made = method("lowrank:4").run(weight, INT3, seen)
    product = decode(made.beside["lowrank_b"]) @ decode(made.beside["lowrank_a"])
    assert np.array_equal(made.effective, decode(made.tensor) + product)


def test_a_weight_that_needs_nothing_gets_zeros():
    made = method("lowrank:4+rtn").run(np.zeros((20, 40), np.float32), INT3, statistics(40))
    assert not made.effective.any()
    assert not decode(made.beside["lowrank_a"]).any()


def test_inputs_that_were_never_active_do_no_harm():
    seen, weight = statistics(40), weights(24, 40)
    seen.moments[5:9] = 0
    seen.moments[:, 5:9] = 0
    made = method("lowrank:4").run(weight, INT3, seen)
    assert np.isfinite(made.effective).all()
    assert error(weight - made.effective, seen.moments) < error(
        weight - decode(method("gptq")(weight, INT3, seen)), seen.moments
    )


def test_the_rank_is_never_more_than_the_matrix_has():
    found = lowrank.needs((24, 40), 100)
    assert {suffix: car.shape for suffix, car in found.items()} == {"lowrank_a": (24, 40), "lowrank_b": (24, 24)}
    made = method("lowrank:100").run(weights(24, 40), INT3, statistics(40))
    assert {suffix: tensor.shape for suffix, tensor in made.beside.items()} == {
        suffix: car.shape for suffix, car in found.items()
    }


def test_statistics_are_needed_and_must_be_of_this_layer():
    with pytest.raises(UsageError, match="lowrank needs statistics"):
        method("lowrank:4+rtn").run(weights(24, 40), INT3, None)
    with pytest.raises(Refused, match="the statistics are of 24 inputs"):
        method("lowrank:4+rtn").run(weights(24, 40), INT3, statistics(24))
