"""Rotations of any width are orthogonal, spread evenly, and what the textbook says they are."""

import numpy as np
import pytest

from scrimp.models.hadamard import hartley, odd_factor, rotate, signs, table

#: Widths of networks: SmolLM2, TinyLlama, Qwen2, Gemma, BitNet; and what fits nothing.
IN_USE = [1, 2, 3, 4, 12, 40, 48, 64, 72, 96, 128, 192, 256, 288, 576, 768, 896, 960, 1536, 2048, 2560]
WIDE = [4096, 4864, 5632, 6912, 8960, 11008, 14336, 49152]
UNIT = 2.0**-53


def sylvester(p):
    """H_p by its definition."""
    found = np.ones((1, 1))
    while len(found) < p:
        found = np.block([[found, found], [found, -found]])
    return found


def dense(width, seed):
    """R written out: Hartley's definition, Kronecker's product, Sylvester's matrix, signs."""
    m = odd_factor(width)
    angle = 2 * np.pi * np.outer(np.arange(m), np.arange(m)) / m
    mix = (np.cos(angle) + np.sin(angle)) / np.sqrt(m)
    return np.kron(mix, sylvester(width // m) / np.sqrt(width // m)) * signs(width, seed)


@pytest.mark.parametrize("width", IN_USE)
def test_every_width_in_use_is_rotated_orthogonally(width):
    matrix = rotate(np.eye(width), 1).T
    assert np.abs(matrix @ matrix.T - np.eye(width)).max() <= 16 * width * UNIT
    assert np.abs(matrix).max() <= np.sqrt(2 / width) * (1 + 16 * width * UNIT)


@pytest.mark.parametrize("width", IN_USE)
def test_a_rotation_is_hartley_times_sylvester_times_signs(width):
    x = np.random.default_rng(width).standard_normal((3, width))
    assert np.abs(rotate(x, 5) - x @ dense(width, 5).T).max() <= 16 * width * UNIT * np.abs(x).max()


@pytest.mark.parametrize("width", IN_USE + WIDE)
def test_the_inverse_brings_back_what_was_rotated(width):
    x = np.random.default_rng(width).standard_normal((2, width))
    turned = rotate(x, 1)
    lengths = np.linalg.norm(x, axis=1)
    assert np.abs(np.linalg.norm(turned, axis=1) - lengths).max() <= 64 * odd_factor(width) * 16 * UNIT * lengths.max()
    assert np.abs(rotate(turned, 1, inverse=True) - x).max() <= 64 * odd_factor(width) * 16 * UNIT * np.abs(x).sum()


def test_stretches_are_rotated_one_by_one():
    x = np.random.default_rng(0).standard_normal((4, 96))
    parts = [rotate(part, 3) for part in np.split(x, 4, axis=1)]
    assert np.array_equal(rotate(x, 3, stretches=4), np.concatenate(parts, axis=1))
    assert not np.allclose(rotate(x, 3, stretches=4), rotate(x, 3))


def test_one_large_number_is_spread_over_all():
    x = np.zeros(576)
    x[100] = 1.0
    assert np.abs(rotate(x, 1)).max() <= np.sqrt(2 / 576) * (1 + 1e-12)


def test_signs_are_balanced_and_depend_on_the_seed():
    for width in (576, 1536, 49152):
        found = signs(width, 1)
        assert set(found) == {-1.0, 1.0}
        assert abs(found.sum()) <= 4 * np.sqrt(width)  # four standard deviations of a fair coin
    assert (signs(4096, 1) != signs(4096, 2)).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(4096))


def test_signs_are_those_of_splitmix64():
    """The first outputs of the generator for seed 1234567 as its author's test vectors have them."""
    outputs = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [int(s) for s in signs(5, 1234567)] == [-1 if value >> 63 else 1 for value in outputs]


def test_the_table_holds_signs_and_then_the_mix():
    found = np.array(table(192, 7))
    assert len(found) == 192 + 3
    assert np.array_equal(found[:192] * 8, signs(192, 7))
    assert np.array_equal(found[192:], hartley(3))
