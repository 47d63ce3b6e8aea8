"""Second moments and Cholesky factors on every instruction set, against float64 NumPy; u32 = 2^-24, u64 = 2^-53."""

import numpy as np
import pytest

from scrimp import _core


def gamma(n, unit):
    return n * unit / (1 - n * unit)


def spd(n, seed=0):
    x = np.random.default_rng([n, seed]).standard_normal((2 * n + 1, n))
    return x.T @ x + 0.01 * n * np.eye(n)


@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (7, 5), (33, 64), (512, 65), (513, 96), (1200, 161)])
def test_moments_are_within_the_bound_of_their_float32_sums(tokens, width, isa):
    x = np.random.default_rng([tokens, width]).standard_normal((tokens, width)).astype(np.float32)
    found = np.ones((width, width))
    _core.add_moments(x, found, 1, isa)
    wide = x.astype(np.float64)
    at_once = min(tokens, 512)
    bound = gamma(at_once + 1, 2.0**-24) * (np.abs(wide).T @ np.abs(wide)) + 1e-12
    assert (np.abs(found - 1 - wide.T @ wide) <= bound)[np.triu_indices(width)].all()


@pytest.mark.parametrize("n", [1, 2, 7, 63, 64, 65, 72, 129, 200])
def test_a_factor_is_one(n, isa):
    """Backward error: ``|A - L Lᵀ| <= gamma(n + 1) |L| |Lᵀ|`` (Higham 2002, theorem 10.3)."""
    a = spd(n)
    lower = a.copy()
    assert _core.cholesky(lower, 1, isa)
    assert (np.triu(lower, 1) == 0).all()
    assert (lower.diagonal() > 0).all()
    assert (np.abs(lower @ lower.T - a) <= 2 * gamma(n + 2, 2.0**-53) * (np.abs(lower) @ np.abs(lower).T)).all()


def test_what_has_no_factor_is_said(isa):
    for n, at in ((1, 0), (5, 3), (150, 149), (150, 70)):
        for bad in (-1.0, 0.0, np.nan):
            a = np.eye(n)
            a[at, at] = bad
            assert not _core.cholesky(a, 2, isa)


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_no_bit(threads, isa):
    x = np.random.default_rng(0).standard_normal((600, 200)).astype(np.float32)
    found = []
    for count in (1, threads):
        (moments, cross), lower = np.zeros((2, 200, 200)), spd(200)
        _core.add_moments(x, moments, count, isa)
        _core.add_cross_moments(x, x[::-1].copy(), cross, count, isa)
        assert _core.cholesky(lower, count, isa)
        found.append((np.triu(moments), cross, lower))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_shapes_that_do_not_fit_are_refused():
    x = np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"moments must be \(K, K\)"):
        _core.add_moments(x, np.zeros((3, 4)), 1, "scalar")
    with pytest.raises(ValueError, match="both must have the same tokens"):
        _core.add_cross_moments(x, np.zeros((5, 3), np.float32), np.zeros((3, 3)), 1, "scalar")
    with pytest.raises(ValueError, match=r"moments must be \(N, K\)"):
        _core.add_cross_moments(x, x, np.zeros((3, 4)), 1, "scalar")
    with pytest.raises(ValueError, match="a must be square"):
        _core.cholesky(np.zeros((3, 4)), 1, "scalar")
    with pytest.raises(ValueError, match="out of range"):
        _core.cholesky(np.eye(3), 0, "scalar")


@pytest.mark.parametrize(
    ("tokens", "rows", "width"), [(1, 1, 1), (7, 5, 9), (33, 64, 64), (513, 96, 40), (1200, 161, 200), (40, 300, 7)]
)
def test_cross_moments_are_within_the_bound_of_their_float32_sums(tokens, rows, width, isa):
    rng = np.random.default_rng([tokens, width])
    a, b = (rng.standard_normal((tokens, side)).astype(np.float32) for side in (rows, width))
    found = np.ones((rows, width))
    _core.add_cross_moments(a, b, found, 1, isa)
    exact, other = a.astype(np.float64), b.astype(np.float64)
    bound = gamma(min(tokens, 512) + 1, 2.0**-24) * (np.abs(exact).T @ np.abs(other)) + 1e-12
    assert (np.abs(found - 1 - exact.T @ other) <= bound).all()
