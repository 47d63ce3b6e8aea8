"""The search for the least error takes two shortcuts; neither may change what it finds by more than it says."""

from __future__ import annotations

import numpy as np
import pytest

from scrimp.formats import ELEMENTS, encode, parse
from scrimp.formats.integers import Integer
from scrimp.formats.logs import Log
from scrimp.formats.posits import Posit
from scrimp.formats.scales import CHOICES, Grid, peaks
from scrimp.formats.search import best_of, nearly_rounded, rounded

#: Rounded to nearest, which posits and logarithms are not.
NEAREST = [e.name for e in ELEMENTS.values() if e.kind != "float" and not isinstance(e.spec, Posit | Log)]


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in NEAREST if name != "e8m0"])
def test_a_look_at_the_upper_bits_errs_no_more_than_those_bits_do(name: str) -> None:
    element = ELEMENTS[name]
    x = numbers((4000,)) * np.float32(min(abs(element.reach(signed=True)) / 3, 1e4))
    exact, quick = rounded(element, x), nearly_rounded(element, x.copy())
    known = np.isfinite(exact) & np.isfinite(quick)
    assert known.mean() > 0.9
    slack = 2 * 2.0**-8 * np.abs(x)
    assert np.all((np.abs(quick - x) <= np.abs(exact - x) * (1 + 1e-6) + slack)[known])
    if isinstance(element.spec, Integer):
        assert np.array_equal(quick, exact)


@pytest.mark.parametrize(
    "name", ["nf4:g64", "fp8_e4m3:row", "int4:g32@bf16", "iq4nl", "quaternary", "posit8_1:g64", "binary", "ternary:g64"]
)
def test_a_scale_that_is_not_tried_would_not_have_won(name: str) -> None:
    format = parse(name)
    assert format.scale is not None
    grid = Grid(format.scale)
    blocks = numbers((9, 4, 64), 1) * np.float32(0.02)
    start = CHOICES["absmax"](blocks, format, grid)
    base = grid.value(start).astype(np.float64)
    candidates = [start, *(grid.nearest(base * ratio) for ratio in np.geomspace(1 / 256, 2, 40))]
    all_tried = best_of(blocks, candidates, format, grid)
    assert np.array_equal(best_of(blocks, candidates, format, grid, peak=peaks(blocks)), all_tried)


@pytest.mark.parametrize("name", ["nf4:g64", "fp8_e4m3:row", "posit8_1:row", "nvfp4", "vsq4", "lns8", "int7:g64"])
def test_the_search_never_errs_more_than_the_largest_magnitude_rule(name: str) -> None:
    weight = numbers((24, 320), 2)
    searched, plain = (encode(weight, name, rule=rule).decode().astype(np.float64) for rule in ("mse", "absmax"))
    assert ((searched - weight) ** 2).sum() <= ((plain - weight) ** 2).sum()
