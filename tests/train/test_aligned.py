"""What a fold did to a matrix is found again from its rounded weights."""

from __future__ import annotations

import numpy as np

from scrimp.train.aligned import aligned


def test_scaled_channels_are_found_to_the_noise_of_rounding():
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(120, 160)).astype(np.float32)
    scaled = np.exp(rng.normal(size=120))[:, None] * weight * np.exp(rng.normal(size=160))
    noise = 0.15 * scaled.std()
    made = scaled + noise * rng.normal(size=scaled.shape)
    found = aligned(weight, made.astype(np.float32))
    parameters = 120 + 160 - 1  # least squares leaves the noise of so many numbers, to first order
    assert np.linalg.norm(found - scaled) < 1.5 * noise * np.sqrt(parameters)


def test_a_plain_rounding_leaves_the_original():
    weight = np.random.default_rng(3).normal(size=(256, 512)).astype(np.float32)
    assert aligned(weight, np.rint(weight * 3).astype(np.float32) / 3) is weight


def test_channels_of_zeros_stay():
    weight = np.random.default_rng(4).normal(size=(32, 48)).astype(np.float32)
    weight[:, 5] = 0
    found = aligned(weight, weight * 3)
    assert np.isfinite(found).all()
    assert not found[:, 5].any()
    np.testing.assert_allclose(found, weight * 3, rtol=1e-5)
