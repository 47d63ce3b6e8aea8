"""adaround and signround: never worse than rounding to nearest, whatever the layer; better where inputs correlate."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import FORMATS, LEARNED, assert_same, of_inputs, of_moments, output_error, statistics, weights

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused, UsageError
from scrimp.formats import parse
from scrimp.quantize import adaround, rtn, signround
from scrimp.quantize.grid import Parts, levels_of
from scrimp.quantize.methods import method
from scrimp.quantize.objective import row_errors
from scrimp.tensors import F32, QTensor

METHODS = (adaround, signround)


def never_more(weight: F32, name: str, given: Statistics, module: ModuleType) -> QTensor:
    format = parse(name)
    found: QTensor = module.quantize(weight, format, given).tensor
    assert (found.format, found.shape) == (format, weight.shape)
    before, after = (
        row_errors(weight - q.dequantize().astype(np.float64), given.moments)
        for q in (rtn.quantize(weight, format), found)
    )
    assert np.isfinite(found.dequantize()).all()
    assert (after <= before).all() if format.block != "tensor" else after.sum() <= before.sum()
    return found


@pytest.mark.parametrize("module", METHODS)
@pytest.mark.parametrize("name", [*FORMATS, *LEARNED])
def test_no_row_errs_more_than_after_rounding_to_nearest(name: str, module: ModuleType) -> None:
    never_more(weights(10, 72), name, statistics(72), module)


@settings(max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 40), st.integers(1, 50),
       st.sampled_from([*FORMATS, *LEARNED]), st.sampled_from(METHODS), st.floats(-6, 3),
       st.sampled_from([1, 300]))  # fmt: skip
def test_singular_moments_dead_inputs_and_outliers_hurt_nothing(
    seed: int, rows: int, cols: int, tokens: int, name: str, module: ModuleType, size: float, outlier: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((tokens, cols)) * rng.integers(0, 2, cols) * 10.0**size).astype(np.float32)
    weight = rng.standard_normal((rows, cols)).astype(np.float32) * rng.choice([0, 1e-6, 1.0, 100], (rows, 1))
    weight = weight.astype(np.float32)
    weight[rng.integers(rows), rng.integers(cols)] *= outlier
    never_more(weight, name, of_inputs(x), module)


@pytest.mark.parametrize(("module", "share"), [(adaround, 0.65), (signround, 0.9)])
@pytest.mark.parametrize("name", ["int2:g32", "int3:g64", "int4z:g32", "nf4:g64", "ternary", "kmeans3:g64"])
def test_correlated_inputs_are_made_use_of(name: str, module: ModuleType, share: float) -> None:
    """A claim about quality; measured: at most 0.58 and 0.81."""
    weight, given = weights(24, 96), statistics(96)
    found = never_more(weight, name, given, module)
    plain = rtn.quantize(weight, parse(name))
    assert output_error(found, weight, given.moments) < share * output_error(plain, weight, given.moments)


@pytest.mark.parametrize("module", METHODS)
def test_rows_where_the_search_finds_nothing_stay_plain_and_are_told(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, given = weights(12, 64), statistics(64)
    start = module.weighted_start

    def spoilt(*arguments: object) -> Parts:
        parts: Parts = start(*arguments)
        scales = parts.scales.copy()
        scales[:, :5] = 100
        return Parts(parts.codes, scales, parts.mins)

    monkeypatch.setattr(module, "weighted_start", spoilt)
    found, plain = module.quantize(weight, parse("int3:g32"), given), rtn.quantize(weight, parse("int3:g32"))
    assert found.notes == ("5 of 12 rows stay as rtn has them, which errs less",)
    assert (found.tensor.codes()[:5] == plain.codes()[:5]).all()
    assert (found.tensor.row_scales()[:5] == plain.row_scales()[:5]).all()
    monkeypatch.setattr(module, "weighted_start", lambda *a: Parts((p := start(*a)).codes, p.scales * 0 + 100, p.mins))
    whole = module.quantize(weight, parse("int3:tensor"), given)
    assert_same(whole.tensor, rtn.quantize(weight, parse("int3:tensor")))
    assert "nothing better than rtn" in whole.notes[0]


def test_adaround_goes_to_one_of_the_two_levels_around_a_weight() -> None:
    weight, given = weights(16, 64), statistics(64)
    levels = levels_of(rtn.quantize(weight, parse("nf4:g32")), "x")
    parts = adaround.weighted_start(weight, levels, given.moments)
    between = adaround.choices(np.ascontiguousarray(weight.T), parts, levels)
    below, above = between.below, between.below + between.span
    inside = (np.minimum(below, above) <= weight.T) & (np.maximum(below, above) >= weight.T)
    assert inside.mean() > 0.95, "but for the clipped ones"
    found = adaround.quantize(weight, parse("nf4:g32"), given).tensor
    learned = (levels.value(parts.scales) == found.row_scales().T).all(axis=0)
    assert learned.sum() > 8, "the others stayed as rtn has them"
    off = np.minimum(*(np.abs(found.dequantize().T - level) for level in (below, above)))
    # above was made of below + span, which rounds once
    assert (off <= 2.0**-23 * np.abs(above - below) + 2.0**-24 * np.abs(above))[:, learned].all()


@pytest.mark.parametrize("module", METHODS)
@pytest.mark.parametrize("name", ["int3:g32", "int4z:row", "ternary", "nf4:g64"])
def test_units_change_nothing_and_the_same_call_gives_the_same_bits(name: str, module: ModuleType) -> None:
    weight, given = weights(16, 96), statistics(96)
    found = module.quantize(weight, parse(name), given).tensor
    assert_same(found, module.quantize(weight, parse(name), given).tensor)
    assert_same(found, module.quantize(weight, parse(name), of_moments(given.moments * 1024.0)).tensor)


@pytest.mark.parametrize("module", METHODS)
def test_what_it_cannot_work_on_is_told(module: ModuleType) -> None:
    name = module.__name__.rpartition(".")[2]
    weight = weights(4, 64)
    with pytest.raises(UsageError, match=f"{name} needs statistics"):
        method(name)(weight, parse("int4"))
    with pytest.raises(UsageError, match=f"{name} has nothing to work on"):
        method(name)(weight, parse("f16"), statistics(64))
    weight[1, 1] = np.inf
    with pytest.raises(Refused, match="1 of 256 weights are NaN or infinite"):
        method(name)(weight, parse("int4"), statistics(64))
