"""Outlier channels in 16 bits beside int8, against NumPy."""

import numpy as np
import pytest
from layers import assert_same, of_inputs, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.quantize.decoded import decode
from scrimp.quantize.llm_int8 import needs
from scrimp.quantize.methods import method

INT8 = parse("int8:g32")


def outlying(cols, channels, size=20.0, tokens=400):
    x = np.random.default_rng(7).standard_normal((tokens, cols)).astype(np.float32)
    x[:, channels] *= size
    return x


def test_the_strongest_channels_by_their_peak_are_kept():
    weight, channels = weights(40, 130), [3, 64, 129]
    made = method("llm_int8").run(weight, INT8, of_inputs(outlying(130, channels)))
    assert made.beside["channels"].tolist() == channels
    assert np.array_equal(decode(made.beside["outliers"]), weight[:, channels].astype(np.float16).astype(np.float32))
    assert not decode(made.tensor)[:, channels].any()
    rest = weight.copy()
    rest[:, channels] = 0
    assert_same(made.tensor, method("rtn")(rest, INT8))
    expected = decode(made.tensor)
    expected[:, channels] = weight[:, channels].astype(np.float16)
    assert np.array_equal(made.effective, expected)
    assert not made.notes


def test_unused_places_hold_the_next_strongest():
    x = outlying(130, [5])
    made = method("llm_int8").run(weights(40, 130), INT8, of_inputs(x))
    strongest = np.sort(np.argsort(-np.abs(x).max(axis=0), kind="stable")[:3])
    assert made.beside["channels"].tolist() == strongest.tolist()
    assert 5 in strongest


def test_more_outliers_than_places_are_told():
    made = method("llm_int8").run(weights(40, 130), INT8, of_inputs(outlying(130, list(range(10, 15)))))
    assert made.notes == ("5 channels reach beyond 6; the 3 strongest are kept in f16",)


def test_methods_that_calibrate_see_these_inputs_as_zero():
    """gptq must not move anything into columns that are not multiplied there."""
    weight, x, channels = weights(40, 130), outlying(130, [3, 64, 129]), [3, 64, 129]
    made = method("llm_int8+gptq").run(weight, parse("int3:g32"), of_inputs(x))
    others = np.delete(np.arange(130), channels)
    rest, seen = weight.copy(), x.copy()
    rest[:, channels] = 0
    seen[:, channels] = 0
    apart = np.delete(decode(made.tensor), channels, axis=1) - weight[:, others]
    alone = np.delete(decode(method("gptq")(rest, parse("int3:g32"), of_inputs(seen))), channels, axis=1)
    seen_rest = x[:, others].astype(np.float64)
    assert np.linalg.norm(seen_rest @ apart.T) == pytest.approx(
        np.linalg.norm(seen_rest @ (alone - weight[:, others]).T), rel=1e-6
    )


@pytest.mark.parametrize(("cols", "count"), [(1, 1), (64, 1), (65, 2), (576, 9), (1536, 24)])
def test_one_place_in_sixty_four(cols, count):
    found = needs((100, cols))
    assert (found["outliers"].shape, found["channels"].shape) == ((100, count), (count,))


def test_statistics_are_needed():
    with pytest.raises(UsageError, match="llm_int8 needs statistics"):
        method("llm_int8").run(weights(24, 40), INT8, None)


def test_weights_beyond_f16_are_clipped_and_stay_finite():
    weight = weights(24, 40)
    weight[3, 4] = 1e6
    made = method("llm_int8").run(weight, INT8, of_inputs(outlying(40, [4])))
    assert decode(made.beside["outliers"]).max() == 65504
