"""Clipped scales: no row errs more than with rtn, and of few blocks the search finds the best by the definition."""

import numpy as np
import pytest
from layers import FORMATS, assert_same, of_moments, statistics, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.quantize import clip, rtn
from scrimp.quantize.objective import row_errors


def errors(q, weight, moments):
    return row_errors(weight - q.dequantize().astype(np.float64), moments)


@pytest.mark.parametrize("format", FORMATS)
def test_no_row_errs_more_than_with_rtn(format):
    weight, measured = weights(37, 96), statistics(96, seed=2)
    made = clip.quantize(weight, parse(format), measured)
    before = errors(rtn.quantize(weight, parse(format)), weight, measured.moments)
    after = errors(made.tensor, weight, measured.moments)
    if parse(format).block == "tensor":
        before, after = before.sum(), after.sum()
    assert (after <= before).all()
    assert not made.notes


@pytest.mark.parametrize("format", ["int2:g32", "int3:g32", "int4z:g32", "nf4:g32", "int3:row"])
def test_correlated_inputs_gain(format):
    weight, measured = weights(200, 96), statistics(96, seed=2)
    before = errors(rtn.quantize(weight, parse(format)), weight, measured.moments).sum()
    assert errors(clip.quantize(weight, parse(format), measured).tensor, weight, measured.moments).sum() < 0.9 * before


def test_a_row_of_one_group_gets_a_scale_near_the_best_of_all():
    """The oracle tries every float16 scale up to the one that clips nothing; the search a few of them."""
    weight, measured, format = weights(40, 32, seed=7), statistics(32, seed=1), parse("int3:g32")
    found = errors(clip.quantize(weight, format, measured).tensor, weight, measured.moments)
    plain = errors(rtn.quantize(weight, format), weight, measured.moments)
    best = np.empty(40)
    for at, row in enumerate(weight.astype(np.float64)):
        scales = np.arange(2**10, 2**15, dtype=np.uint16).view(np.float16).astype(np.float64)
        scales = scales[scales < np.abs(row).max()]
        scales = np.concatenate([scales, -scales])  # a negative one turns the levels -4 … 3 over
        rounded = np.clip(np.rint(row / scales[:, None]), -4, 3) * scales[:, None]
        best[at] = row_errors(rounded - row, measured.moments).min()
    assert (best <= found * (1 + 1e-6)).all()
    assert (found - best).sum() < 0.25 * (plain - best).sum()


def test_levels_that_do_not_stand_still_are_rounded_plainly_and_it_is_said():
    weight, format = weights(20, 256), parse("kmeans4")
    made = clip.quantize(weight, format, statistics(256))
    assert_same(made.tensor, rtn.quantize(weight, format))
    assert "rtn:clip has nothing to work on" in made.notes[0]


def test_inputs_that_were_never_active_count_nothing():
    moments = np.zeros((96, 96))
    weight = weights(10, 96)
    made = clip.quantize(weight, parse("int4:g32"), of_moments(moments))
    assert_same(made.tensor, rtn.quantize(weight, parse("int4:g32")))
    with pytest.raises(UsageError, match="rtn:clip needs statistics"):
        clip.quantize(weight, parse("int4:g32"), None)
