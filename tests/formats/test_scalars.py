"""Every scalar code, exhaustively: what its codes mean, and where numbers between them go."""

import numpy as np
import pytest
from format_checks import (
    GOLDEN,
    check_golden,
    check_monotone,
    check_nearest,
    check_numbers_come_back,
    check_symmetric,
    check_ties,
    signed_levels,
)

from scrimp.errors import Refused
from scrimp.formats import ELEMENTS
from scrimp.formats.catalogue import element
from scrimp.formats.posits import Posit

FIXED = ("fixed8.6", "fixed8.4", "fixed5.2", "sm8.6", "sm5.3", "sm4.2", "sm3.1")
TABLES = [e.name for e in ELEMENTS.values() if e.name not in ("f32", "tf32")] + list(FIXED)


def code_of(name):
    return element(name).code()


@pytest.mark.parametrize("name", GOLDEN)
def test_codes_mean_what_the_golden_digest_says(name):
    check_golden(code_of(name).values, name)


@pytest.mark.parametrize("name", ["posit6_1"])
def test_odd_posits_have_their_golden_digest_too(name):
    from format_checks import digest

    assert digest(Posit(6, 1).code().values) == "11efbcad3de1fac7"


@pytest.mark.parametrize("name", TABLES)
def test_every_number_encodes_to_its_own_code(name):
    check_numbers_come_back(code_of(name), code_of(name).encode)


@pytest.mark.parametrize("name", TABLES)
def test_codes_grow_with_their_numbers_and_thresholds_lie_between(name):
    code = code_of(name)
    assert np.all(np.diff(code.levels) > 0)
    if code.mirror != "none":
        assert np.array_equal(code.codes, np.arange(len(code.levels)))
    assert np.array_equal(code.values[code.codes], code.levels)
    inner = slice(1, None) if name.startswith(("posit", "elma")) else slice(None)  # theirs begin at zero itself
    assert np.all(code.levels[:-1][inner] < code.thresholds[inner])
    assert np.all(code.thresholds < code.levels[1:])


@pytest.mark.parametrize("name", [n for n in TABLES if not n.startswith(("posit", "elma", "lns"))])
def test_no_other_number_is_nearer(name):
    check_nearest(code_of(name), code_of(name).encode)


def test_logarithms_round_to_the_nearest_logarithm():
    code = code_of("lns8")
    x = np.geomspace(code.min_positive, code.largest, 20_001)
    off = code.values[code.encode(x)] / x
    assert np.max(np.abs(np.log2(off))) <= 2**-5 * (1 + 1e-12)
    assert np.max(np.abs(off - 1)) <= 2 ** (2**-5) - 1 + 1e-12  # 2.2 %
    assert code.values[code.encode(np.array([3.0]))][0] == 2 ** (25 / 16)  # what the package xlns makes of 3


@pytest.mark.parametrize("name", TABLES)
def test_ties_go_to_the_even_code_and_neighbours_to_their_own_sides(name):
    code = code_of(name)
    check_ties(code, lambda x: code.encode(x))


@pytest.mark.parametrize("name", TABLES)
def test_rounding_is_monotone_idempotent_and_keeps_zero(name):
    check_monotone(code_of(name), code_of(name).encode)


@pytest.mark.parametrize("name", [n for n in TABLES if code_of(n).mirror != "none"])
def test_symmetric_codes_round_both_sides_alike(name):
    check_symmetric(code_of(name), code_of(name).encode)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [
        ("int1", -1, 0),
        ("int4", -8, 7),
        ("int8", -128, 127),
        ("int16", -32768, 32767),
        ("int4r", -7, 7),
        ("uint8", 0, 255),
        ("quaternary", -1, 2),
        ("ternary", -1, 1),
        ("binary", -1, 1),
        ("nf4", -1, 1),
        ("af4", -1, 1),
        ("iq4nl", -127, 113),
        ("fixed8.4", -8, 7.9375),
        ("fixed8.6", -2, 1.984375),
    ],
)
def test_the_ends_of_asymmetric_codes(name, lowest, highest):
    levels = signed_levels(code_of(name))
    assert (levels[0], levels[-1]) == (lowest, highest)


@pytest.mark.parametrize(
    ("name", "largest", "min_positive"),
    [
        ("fp8_e4m3", 448, 2**-9),
        ("fp8_e5m2", 57344, 2**-16),
        ("fp8_e3m4", 15.5, 2**-6),
        ("fp8_e4m3_ieee", 240, 2**-9),
        ("fp8_e4m3_fnuz", 240, 2**-10),
        ("fp8_e5m2_fnuz", 57344, 2**-17),
        ("fp8_e4m3b11_fnuz", 30, 2**-13),
        ("fp6_e2m3", 7.5, 0.125),
        ("fp6_e3m2", 28, 0.0625),
        ("fp4_e2m1", 6, 0.5),
        ("f16", 65504, 2**-24),
        ("bf16", 3.3895313892515355e38, 2**-133),
        ("e8m0", 2**127, 2**-127),
        ("k8p3se", 49152, 2**-17),
        ("k8p4se", 224, 2**-10),
        ("k8p5se", 15, 2**-7),
        ("k8p3sf", 57344, 2**-17),
        ("k8p4sf", 240, 2**-10),
        ("k8p5sf", 15.5, 2**-7),
        ("posit8_0", 64, 2**-6),
        ("posit8_1", 4096, 2**-12),
        ("posit8_2", 2**24, 2**-24),
        ("posit16_1", 2**28, 2**-28),
        ("posit16_2", 2**56, 2**-56),
        ("elma8", 4096, 2**-12),
        ("lns8", 2 ** (63 / 16), 2 ** (-63 / 16)),
    ],
)
def test_the_largest_and_the_smallest_number(name, largest, min_positive):
    assert (code_of(name).largest, code_of(name).min_positive) == (largest, min_positive)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("fp8_e4m3", [464, 464.1, 1e30, INF, -INF, NAN], [448, 448, 448, 448, -448, NAN]),
        ("fp8_e5m2", [61439, 61440, 1e30, INF, NAN], [57344, 57344, 57344, 57344, NAN]),
        ("fp8_e5m2_ieee", [61439, 61440, 1e30, INF, -INF, NAN], [57344, INF, INF, INF, -INF, NAN]),
        ("fp8_e4m3_ieee", [247.9, 248, INF], [240, INF, INF]),
        ("fp8_e3m4", [15.75, 16, INF], [15.5, 15.5, 15.5]),
        ("fp8_e4m3_fnuz", [248, 1e30, INF, NAN, -0.0], [240, 240, NAN, NAN, 0]),
        ("fp6_e2m3", [7.75, 1e30, -INF], [7.5, 7.5, -7.5]),
        ("fp4_e2m1", [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, INF], [0, 1, 1, 2, 2, 4, 4, 6]),
        ("e8m0", [1.5, 3, 2.0**-149, 0, -1, INF, NAN, 1e39], [2, 4, 2.0**-127, NAN, NAN, NAN, NAN, 2.0**127]),
        ("k8p4se", [231.9, 232, 240, INF], [224, 224, INF, INF]),
        ("k8p4sf", [1e30, INF], [240, NAN]),
        ("posit8_0", [40, 48, 49, 1e-9, 1e30, 0, INF, NAN], [32, 32, 64, 1 / 64, 64, 0, NAN, NAN]),
        ("posit8_2", [131071, 131072, 131073, 163840], [65536, 65536, 262144, 262144]),
        ("elma8", [1e-30, 1e30, 0, INF], [2.0**-12, 4096, 0, NAN]),
        ("int4", [7.5, 100, -8.5, INF, -INF, 0.5, 1.5, -0.5], [7, 7, -8, 7, -8, 0, 2, 0]),
        ("uint8", [-3, 255.5, INF], [0, 255, 255]),
        ("nf4", [2, -2, INF], [1, -1, 1]),
    ],
)
def test_ties_overflow_and_specials(name, given, kept):
    code = code_of(name)
    found = code.values[code.encode(np.array(given, np.float64))]
    assert np.array_equal(found, np.array(kept, np.float64), equal_nan=True)


def test_thresholds_of_the_outermost_posits_are_no_midpoints():
    """Of the thresholds between positive numbers 0, 2 and 6 are no arithmetic midpoints for es = 0, 1, 2."""
    for es, count in ((0, 0), (1, 2), (2, 6)):
        code = Posit(8, es).code()
        assert np.count_nonzero(code.thresholds[1:] != (code.levels[1:-1] + code.levels[2:]) / 2) == count


@pytest.mark.parametrize("name", [n for n in TABLES if code_of(n).nan is None])
def test_a_code_without_nan_refuses_it(name):
    with pytest.raises(Refused, match="1 of 2 numbers are NaN"):
        code_of(name).encode(np.array([0.5, np.nan]))


def test_another_overflow_policy_is_another_value():
    code = code_of("fp8_e4m3").overflowing("nan")
    assert np.array_equal(code.values[code.encode(np.array([464.0, 464.1, INF]))], [448, NAN, NAN], equal_nan=True)
    assert code_of("fp8_e4m3").encode(np.array([INF]))[0] == 0x7E


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2_ieee", "fp4_e2m1", "fp6_e3m2", "f16", "bf16"])
def test_negative_zero_keeps_its_sign_where_there_is_one(name):
    code = code_of(name)
    assert np.signbit(code.values[code.encode(np.array([-0.0, -code.min_positive / 4]))]).all()


@pytest.mark.parametrize("name", ["fp8_e4m3_fnuz", "fp8_e5m2_fnuz", "k8p4se", "posit8_1", "lns8"])
def test_there_is_only_one_zero_where_the_format_has_one(name):
    code = code_of(name)
    assert code.encode(np.array([-0.0]))[0] == 0
