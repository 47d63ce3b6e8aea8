"""Errors of formats: published facts, bounds by exact integrals, and numbers a reader can check by hand."""

import math

import numpy as np
import pytest

from scrimp.formats import encode, parse
from scrimp.measure.format_error import compare, error_by_magnitude, error_of, level_uses, sample
from scrimp.measure.rate_distortion import (
    DB_PER_BIT,
    ENTROPY_CODED_BITS,
    entropy_coded,
    judge,
    lloyd_max,
    shannon_db,
    uniform,
)

COUNT = 1 << 20
#: Standard errors of the SQNR over COUNT numbers, by the delta method from the samples themselves: 0.004 to 0.016 dB on
#: a Gaussian, up to 0.025 on Laplace, up to 0.05 on Student's t. Published figures are samples of that size too.
GAUSSIAN_DB = 0.06


@pytest.fixture(scope="module")
def samples():
    return {name: sample(name, COUNT, seed=1) for name in ("gaussian", "laplace", "student_t")}


@pytest.mark.parametrize(
    ("bits", "lloyd", "entropy", "even", "step"),
    [(1, 4.396, 1.0, 4.396, 1.5958), (2, 9.300, 1.911, 9.250, 0.9957), (3, 14.616, 2.825, 14.267, 0.5860),
     (4, 20.222, 3.765, 19.377, 0.3352), (5, 26.013, 4.730, 24.565, 0.1881), (6, 31.910, 5.710, 29.830, 0.1041),
     (7, 37.865, 6.700, 35.167, 0.0569), (8, 43.851, 7.694, 40.571, 0.0308)],
)  # fmt: skip
def test_lloyd_max_and_uniform_levels_have_the_published_error(bits, lloyd, entropy, even, step):
    best = lloyd_max(2**bits)
    assert best.sqnr_db == pytest.approx(lloyd, abs=0.003)
    assert best.entropy_bits == pytest.approx(entropy, abs=0.001)
    # The printed step is rounded to 5e-5; the error is flat at the best step, so this hardly matters.
    assert uniform(step, 2**bits).sqnr_db == pytest.approx(even, abs=0.001)
    assert best.sqnr_db < shannon_db(bits)


@pytest.mark.parametrize("count", [2, 3, 7, 16, 256])
def test_no_level_of_lloyd_max_can_move_without_loss(count):
    best = lloyd_max(count)
    for i in (0, count // 2, count - 1):
        for shift in (-1e-3, 1e-3):
            moved = best.levels.copy()
            moved[i] += shift
            assert judge(moved).sqnr_db < best.sqnr_db


def test_three_levels_are_the_published_ternary():
    best = lloyd_max(3)
    assert best.levels == pytest.approx([-1.2240, 0, 1.2240], abs=5e-5)
    assert (best.sqnr_db, best.entropy_bits) == (pytest.approx(7.2085, abs=5e-5), pytest.approx(1.536, abs=5e-4))


@pytest.mark.parametrize("step", [2.0, 1.5, 1.0, 0.5, 0.2, 0.1])
def test_entropy_coded_steps_are_a_quarter_bit_from_shannon(step):
    coded = entropy_coded(step)
    gap = coded.entropy_bits - coded.sqnr_db / DB_PER_BIT
    assert pytest.approx(0.2546, abs=5e-5) == ENTROPY_CODED_BITS
    assert gap == pytest.approx(0.254, abs=0.003)  # 0.251 at 1.24 bits, the limit from above 3 bits on


@pytest.mark.parametrize(
    ("format", "rule", "expected"),
    [("int4r:tensor@f32", "mse", 18.91), ("int4:tensor@f32", "mse", 19.26), ("int4:g32", None, 20.27),
     ("int8:g32", None, 45.44), ("mxint8", None, 41.68), ("mxfp8_e4m3", None, 30.65), ("mxfp8_e4m3", "rceil", 31.53),
     ("mxfp6_e2m3", None, 30.95), ("mxfp6_e3m2", "rceil", 25.54), ("fp6_e2m3:tensor@f32", "mse", 30.85),
     ("fp8_e4m3", None, 31.55), ("fp8_e5m2", None, 25.57), ("fp8_e3m4:tensor@f32", "mse", 37.56),
     ("mxfp4", None, 18.79), ("mxfp4", "rceil", 18.76), ("mxfp4", "even", 19.03), ("mxfp4", "mse", 19.05),
     ("nvfp4", None, 20.43), ("nf4:g64@f32", None, 20.73), ("af4:g64@f32", None, 20.38), ("vsq4", None, 21.20),
     ("vsq6", None, 34.11), ("smx9", None, 46.53), ("smx6", None, 28.30), ("smx4", None, 15.71),
     ("msfp16", None, 36.79), ("msfp12", None, 13.13), ("posit8_1", None, 37.48), ("posit8_2", None, 31.55),
     ("ternary", "twn", 7.17), ("ternary", "absmean", 5.79), ("binary", None, 4.396), ("quaternary:g32", None, 9.58)],
)  # fmt: skip
def test_published_errors_on_a_gaussian(samples, format, rule, expected):
    assert error_of(samples["gaussian"], parse(format), rule=rule).sqnr_db == pytest.approx(expected, abs=GAUSSIAN_DB)


def test_eight_bits_with_one_scale_come_near_the_best_uniform_steps(samples):
    # The reference's sample has 40.69, which is above what 256 even steps can do in the mean: 40.571.
    best = uniform(0.0308, 256).sqnr_db
    found = error_of(samples["gaussian"], parse("int8:tensor@f32"), rule="mse").sqnr_db
    # Few clipped numbers make up much of this noise: its standard error is 0.12 dB, and the search sees 2^18 numbers.
    assert found == pytest.approx(best, abs=0.3)


@pytest.mark.parametrize(
    ("format", "laplace", "student"),
    [("int4:g32", 18.31, 17.66), ("mxfp4", 17.97, 17.64), ("nvfp4", 20.66, 20.72), ("nf4:g64@f32", 19.68, 19.07),
     ("mxint8", 40.01, 39.24), ("mxfp8_e4m3", 30.06, 29.90), ("smx9", 45.5, 45.2)],
)  # fmt: skip
def test_published_errors_on_heavier_tails(samples, format, laplace, student):
    # Three standard errors of a difference: 3 * sqrt(2) * 0.025 and 0.05, rounded.
    assert error_of(samples["laplace"], parse(format)).sqnr_db == pytest.approx(laplace, abs=0.1)
    assert error_of(samples["student_t"], parse(format)).sqnr_db == pytest.approx(student, abs=0.25)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student_t"])
def test_samples_have_variance_one_and_repeat(samples, name):
    assert samples[name].astype(np.float64).var() == pytest.approx(1, abs=0.03)
    assert np.array_equal(samples[name], sample(name, COUNT, seed=1))
    assert not np.array_equal(samples[name], sample(name, COUNT, seed=2))


def test_measures_are_those_of_the_formulas_by_hand():
    x = np.array([[0.5, -1.75, 3.0, 500.0]], np.float32)
    found = error_of(x, parse("fp8_e4m3"))  # 500 saturates at 448, the others are numbers of the format
    assert (found.mse, found.max_error) == (52**2 / 4, 52)
    assert found.sqnr_db == pytest.approx(10 * math.log10((0.25 + 1.75**2 + 9 + 250000) / 52**2), rel=1e-12)
    assert found.entropy_bits == 2  # four different codes
    assert found.capacity_used == 2 / 8


def test_what_is_kept_exactly_is_infinitely_good():
    x = np.array([[1.0, -2.0, 0.0, 4.0]], np.float32)
    found = error_of(x, parse("f32"))
    assert (found.sqnr_db, found.mse, found.cosine, found.entropy_bits) == (math.inf, 0, 1, None)


def test_an_all_zero_tensor_loses_nothing_and_has_no_angle():
    found = error_of(np.zeros((2, 64), np.float32), parse("int4"))
    assert found.sqnr_db == math.inf
    assert math.isnan(found.cosine)
    assert found.entropy_bits == 0


def test_a_number_without_code_makes_the_error_nan():
    x = np.full((1, 64), 0.5, np.float32)
    x[0, 3] = np.nan
    assert math.isnan(error_of(x, parse("int8")).sqnr_db)


@pytest.mark.parametrize("format", ["int4:g32", "mxfp4", "ternary", "nf4", "q4_1", "kmeans3", "fp6_e3m2", "bf16"])
def test_the_table_of_levels_adds_up_to_the_entropy(samples, format):
    stored = encode(samples["gaussian"][:32], format)
    uses = level_uses(stored)
    error = compare(samples["gaussian"][:32], stored)
    assert sum(use.percent for use in uses) == pytest.approx(100)
    assert sum(use.entropy_bits for use in uses) == pytest.approx(error.entropy_bits)
    assert sum(use.capacity_percent for use in uses) == pytest.approx(100 * error.capacity_used)
    assert [use.level for use in uses] == sorted(use.level for use in uses)


@pytest.mark.parametrize(("format", "fraction"), [("fp8_e4m3", 3), ("fp8_e5m2", 2), ("fp6_e3m2", 2), ("bf16", 7)])
def test_floats_err_the_same_at_every_magnitude_until_they_run_out(format, fraction):
    octave = 10 ** (np.array([d for m, d in error_by_magnitude(parse(format)) if -2 < m < -1]) / 10)
    # Uniform in steps of 2^-M of the octave's foot: mean of step^2/12/x^2 over x in [1, 2] is step^2/24. Bins of an
    # eighth of an octave weigh alike instead of by width, and hold few steps each: within 1.5 dB.
    assert 10 * math.log10(octave.mean()) == pytest.approx(10 * math.log10(4.0**-fraction / 24), abs=1.5)


def test_every_format_of_the_catalogue_has_a_curve_or_a_reason():
    from scrimp.measure.format_report import catalogue

    without = [name for name in catalogue() if not list(error_by_magnitude(parse(name)))]
    assert without == ["f32", "int1:g64"]  # exact; and -1 and 0 have nothing above zero
