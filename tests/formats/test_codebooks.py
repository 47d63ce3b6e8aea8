"""Where the levels of NF4 and AF4 come from, and what k-means learns."""

from statistics import NormalDist

import numpy as np
import pytest

from scrimp.formats import ELEMENTS, encode
from scrimp.formats.catalogue import element
from scrimp.formats.codebooks import AF4, IQ4_NL, NF4, in_steps
from scrimp.formats.kmeans import learn

PHI = NormalDist()


def test_nf4_is_made_of_normal_quantiles():
    offset = (31 / 32 + 29 / 30) / 2
    positive = [PHI.inv_cdf(p) for p in np.linspace(offset, 0.5, 9)[:-1]]
    negative = [-PHI.inv_cdf(p) for p in np.linspace(offset, 0.5, 8)[:-1]]
    levels = np.sort([*positive, 0.0, *negative]) / max(positive)
    assert np.abs(levels - NF4).max() < 2e-7


def cell_distribution(x, block=64):
    """Distribution of w / max|w| of a normal block: F(x) = 1/2B + (B-1)/B ∫ P(w/m ≤ x | |w| < m) dP(max = m)."""
    m = np.linspace(1e-6, 9, 40_001)
    cdf = np.array([PHI.cdf(v) for v in m])
    inside = 2 * cdf - 1
    density = 2 * block * np.exp(-m * m / 2) / np.sqrt(2 * np.pi) * inside ** (block - 1)
    scaled = np.interp(np.abs(m * x), m, cdf, right=1.0)
    scaled = np.where(x >= 0, scaled, 1 - scaled)
    value = np.where(inside > 0, (scaled - (1 - cdf)) / np.where(inside > 0, inside, 1), 0.5)
    return 1 / (2 * block) + (block - 1) / block * np.trapezoid(value * density, m)


@pytest.mark.parametrize("at", [1, 3, 5, 9, 11, 14])
def test_every_level_of_af4_is_the_median_of_its_cell(at):
    """Least absolute error: as much of the distribution of w / max|w| lies below a level within its cell as above."""
    levels = np.array(AF4)
    low, high = (levels[at - 1] + levels[at]) / 2, (levels[at] + levels[at + 1]) / 2
    below = cell_distribution(levels[at]) - cell_distribution(low)
    above = cell_distribution(high) - cell_distribution(levels[at])
    assert abs(below - above) / (below + above) < 1e-4


def test_levels_are_the_float32_numbers_that_decoding_multiplies():
    for name in ("nf4", "af4"):
        values = ELEMENTS[name].code().values
        assert np.array_equal(values, values.astype(np.float32))


def test_k_means_is_a_fixed_point_of_lloyds_conditions():
    """Every level is the weighted mean of the numbers nearest to it."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_t(4, size=50_000).astype(np.float32), rng.random(50_000).astype(np.float32)
    levels = learn(x, weight, 3)
    nearest = np.abs(x[:, None] - levels).argmin(axis=1)
    means = [np.average(x[nearest == k], weights=weight[nearest == k]) for k in range(8)]
    assert np.abs(levels - means).max() < 0.02 * x.std()


def test_learned_levels_are_the_tensors_own_when_there_are_few():
    levels = np.float32([-1, -0.75, -0.2, 0.1, 0.3, 0.55, 0.8, 0.9])
    w = np.random.default_rng(1).choice(levels, size=(64, 256))
    assert np.abs(encode(w, "kmeans3:tensor@f32").decode() - w).max() < 1e-6


def test_the_learned_codebook_is_stored_and_counted():
    w = np.random.default_rng(2).normal(size=(64, 256)).astype(np.float32)
    tensor = encode(w, "kmeans4:g64")
    assert tensor.extra["codebook"].shape == (16,)
    assert tensor.nbytes == 64 * 256 // 2 + 64 * 4 * 2 + 16 * 4
    assert np.array_equal(np.sort(tensor.extra["codebook"]), tensor.extra["codebook"])


def test_levels_in_8_bits_are_exact_where_they_are_multiples():
    for name, factor, largest in (
        ("fp4_e2m1", 0.5, 12),
        ("iq4nl", 1.0, 127),
        ("sm4.2", 0.25, 7),
        ("fixed3.2", 0.25, 4),
    ):
        table = element(name).tabulated()
        steps = in_steps(table)
        assert (float(steps.factor), np.abs(steps.levels).max()) == (factor, largest), name
        assert np.array_equal(steps.factor * steps.levels.astype(np.float32), table), name
        assert steps.error(table) == 0
    assert in_steps(np.float32(IQ4_NL)).levels.tolist() == list(IQ4_NL)


def test_levels_in_8_bits_are_nearer_than_steps_of_a_127th():
    rng = np.random.default_rng(1)
    tables = [np.float32(NF4), np.float32(AF4), *(rng.normal(size=n).astype(np.float32) for n in (4, 8, 16) * 20)]
    for table in tables:
        steps, peak = in_steps(table), float(np.abs(table).max())
        off = table - np.float64(steps.factor) * steps.levels
        plain = table - np.rint(table * 127.0 / peak) * peak / 127
        assert np.square(off).sum() <= np.square(plain).sum() * (1 + 1e-6)
        assert steps.error(table) * peak == pytest.approx(np.abs(off).max())
    assert in_steps(np.float32(NF4)).error(np.float32(NF4)) < 0.004


def test_levels_that_are_no_numbers_or_nothing():
    assert np.isnan(in_steps(np.float32([0, np.inf, 1, 2])).factor)
    assert np.isnan(in_steps(np.float32([0, np.nan, 1, 2])).factor)
    nothing = in_steps(np.zeros(4, np.float32))
    assert (float(nothing.factor), nothing.levels.tolist()) == (0.0, [0, 0, 0, 0])
    for tiny in (1e-42, 3e38):
        table = np.float32([-tiny, 0, tiny / 3, tiny])
        assert np.isfinite(in_steps(table).factor)
        assert in_steps(table).error(table) < 0.5 / 127
