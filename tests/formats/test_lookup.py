"""The fast encoders equal the reference: at every threshold and its neighbours, on random bits, on all of bfloat16."""

import numpy as np
import pytest
from format_checks import float32_neighbours

from scrimp.errors import Refused
from scrimp.formats import ELEMENTS, lookup
from scrimp.formats.catalogue import element
from scrimp.formats.code import ROUNDINGS, listed
from scrimp.formats.rounding import to_codes

FIXED = ["fixed8.4", "fixed8.6", "fixed12.6", "sm8.6", "sm3.1"]
TABLES = [e.name for e in ELEMENTS.values() if e.kind == "table"] + FIXED
WHOLE = [e.name for e in ELEMENTS.values() if e.kind in ("int", "ternary", "binary")]
ONES = ["even", "away", "zero"]


def adversarial(code, count):
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    typical = (rng.normal(size=count) * code.largest / 3).astype(np.float32)
    edges = np.concatenate([code.levels, code.thresholds, [code.largest * f for f in (1.01, 1.02, 1.05, 1.1, 1.5, 2)]])
    with np.errstate(over="ignore"):
        near = float32_neighbours(np.concatenate([edges, -edges]))
    all_bf16 = (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)
    last_of_each = (np.arange(2**16, dtype=np.uint32) << 16 | 0xFFFF).view(np.float32)
    x = np.concatenate([bits, typical, near, all_bf16, last_of_each])
    return x if code.nan is not None else x[~np.isnan(x)]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("rounding", ONES)
def test_looked_up_codes_equal_the_reference(name, rounding):
    code = element(name).code()
    x = adversarial(code, 100_000)
    assert np.array_equal(lookup.encode(code, x, rounding), code.encode(x, rounding))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_integer_arithmetic_equals_the_reference(name, rounding):
    stored = element(name)
    code = stored.code()
    x = adversarial(code, 100_000)
    uniform = np.random.default_rng(9).random(x.shape)
    found = to_codes(stored, x, rounding, np.random.default_rng(9))
    assert np.array_equal(found, code.encode(x, rounding, uniform[: x.size]))


@pytest.mark.parametrize("policy", ["saturate", "nan"])
@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2_ieee", "fp8_e4m3_fnuz", "k8p4se"])
def test_another_overflow_policy_has_a_table_of_its_own(name, policy):
    code = element(name).code()
    lookup.encode(code, np.zeros(1, np.float32))  # the first policy's table is there, and must not be taken
    other = code.overflowing(policy)
    x = adversarial(other, 50_000)
    assert np.array_equal(lookup.encode(other, x), other.encode(x))


def test_every_kind_of_table_is_in_use():
    """The three fast ways and the search each serve some element, so that none of the tests above is empty."""
    kinds = {}
    for name in [*TABLES, "f16"]:
        code = element(name).code()
        lookup.encode(code, np.zeros(1, np.float32))
        kinds.setdefault(type(code.cache["even"]).__name__, []).append(name)
    assert set(kinds) == {"_Buckets", "_Compared", "_Fine", "_Searched"}
    assert {"fp8_e4m3", "fp4_e2m1", "posit8_2", "fixed8.6"} <= set(kinds["_Buckets"])
    assert {"nf4", "af4", "lns8"} <= set(kinds["_Compared"])
    assert {"posit16_1", "posit16_2"} == set(kinds["_Fine"])


@pytest.mark.parametrize("seed", range(20))
def test_random_codebooks_are_looked_up_right(seed):
    """Learned levels lie anywhere: crowded, equal, one-sided, subnormal."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(size=16) * 2.0 ** rng.integers(-3 if seed % 2 else -140, 3, 16)
    if seed % 3 == 0:
        levels[4:8] = levels[4] + np.arange(4) * 2.0**-12
    if seed % 5 == 0:
        levels = np.repeat(levels[:4], 4)
    code = listed(4, levels.astype(np.float32).astype(np.float64))
    x = adversarial(code, 20_000)
    for rounding in ONES:
        assert np.array_equal(lookup.encode(code, x, rounding), code.encode(x, rounding))


@pytest.mark.parametrize("name", ["nf4", "fp4_e2m1"])
def test_nan_is_refused_where_no_code_means_it(name):
    with pytest.raises(Refused, match="1 of 3 numbers are NaN"):
        lookup.encode(element(name).code(), np.array([1, np.nan, 0], np.float32))


def test_shapes_and_strides_are_kept():
    code = element("fp8_e4m3").code()
    x = np.random.default_rng(0).normal(size=(70, 1000)).astype(np.float32)
    assert np.array_equal(lookup.encode(code, x.T), code.encode(x.T))
    assert np.array_equal(lookup.encode(code, x[::3, ::7]), code.encode(x[::3, ::7]))
    assert lookup.encode(code, np.empty((0, 4), np.float32)).shape == (0, 4)
