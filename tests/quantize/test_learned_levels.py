"""Formats that learn their levels: what methods make of them, and that the sum of errors never rises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import LEARNED, assert_same, of_inputs, output_error, statistics, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.formats.kmeans import learn, sample
from scrimp.quantize import codebook, rtn
from scrimp.quantize.grid import levels_of, parts_of
from scrimp.quantize.methods import method
from scrimp.tensors import encode

ALL = ("gptq", "gptq+refit", "gptq+descent", "gptq+swap", "kmeans", "kmeans+refit", "kmeans+swap", "rtn+refit")


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("chosen", ALL)
def test_the_output_errs_less_than_after_rounding_to_nearest(chosen: str, name: str) -> None:
    weight, stats = weights(20, 136), statistics(136)
    found = method(chosen)(weight, parse(name), stats)
    plain = output_error(rtn.quantize(weight, parse(name)), weight, stats.moments)
    assert found.extra.keys() >= {"codebook"}
    assert output_error(found, weight, stats.moments) < plain


@pytest.mark.parametrize("name", LEARNED)
def test_values_are_those_of_the_stored_tensor_bit_for_bit(name: str) -> None:
    tensor = encode(weights(19, 72), name)
    levels = levels_of(tensor, "x")
    parts = parts_of(tensor, levels)
    scale = levels.value(parts.scales)[np.arange(72) // tensor.format.group(72)]
    values = levels.values(parts.codes, scale)
    assert (tensor.dequantize() == values.T).all()


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 60), st.integers(1, 70), st.sampled_from(LEARNED),
       st.floats(-6, 3))  # fmt: skip
def test_solving_for_levels_never_hurts(seed: int, rows: int, cols: int, tokens: int, name: str, size: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((tokens, cols)) * rng.integers(0, 2, cols) * 10.0**size).astype(np.float32)
    weight = rng.standard_normal((rows, cols)).astype(np.float32) * rng.choice([0, 1e-6, 1.0, 100], (rows, 1))
    weight, moments = weight.astype(np.float32), of_inputs(x).moments
    tensor = encode(weight, name) if rows > 1 else rtn.quantize(weight, parse(name))
    better = codebook.refit(tensor, weight, moments)
    assert output_error(better, weight, moments) <= output_error(tensor, weight, moments)
    plain = output_error(rtn.quantize(weight, parse(name)), weight, moments)
    assert output_error(method("kmeans")(weight, parse(name), of_inputs(x)), weight, moments) <= plain


@pytest.mark.parametrize("name", ["kmeans2:g64", "kmeans3:g64", "kmeans4:g64"])
def test_levels_that_are_solved_for_beat_those_learned_blindly(name: str) -> None:
    weight, stats = weights(64, 192), statistics(192)
    errors = [output_error(method(m)(weight, parse(name), stats), weight, stats.moments) for m in ("gptq", "kmeans")]
    assert errors[1] < errors[0]


def test_an_input_that_counts_for_nothing_teaches_nothing() -> None:
    weight = weights(64, 33)
    importance = np.ones(33, np.float32)
    importance[32] = 0
    x, cost = sample(weight, 64, whole=False, importance=importance)
    without = np.delete(x.reshape(64, -1)[:, :33], 32, axis=1).ravel()
    known = np.delete(cost.reshape(64, -1)[:, :33], 32, axis=1).ravel()
    levels = learn(x, cost, 3, linear=True)
    again = learn(np.append(without, x[[x.argmin(), x.argmax()]]), np.append(known, [0, 0]), 3, linear=True)
    np.testing.assert_allclose(levels, again, rtol=1e-5)


def test_formats_with_levels_of_their_own_are_left_to_gptq() -> None:
    weight, stats, format = weights(4, 64), statistics(64), parse("int8:g64")
    found = method("kmeans").run(weight, format, stats)
    assert found.notes == ("int8:g64 has levels of its own: gptq chose its codes",)
    assert_same(found.tensor, method("gptq")(weight, format, stats))
    with pytest.raises(UsageError, match="kmeans needs statistics"):
        method("kmeans")(weights(4, 64), parse("kmeans4:g64"))
