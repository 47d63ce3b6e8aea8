"""Log-likelihood, divergence and agreement of rows of logits, against float64 NumPy."""

import numpy as np
import pytest

from scrimp import _core


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("vocab", [1, 2, 15, 16, 17, 512, 49152])
@pytest.mark.parametrize("threads", [1, 3])
def test_scores_equal_float64(vocab, threads, isa):
    rng = np.random.default_rng(vocab)
    logits = (rng.normal(size=(9, vocab)) * 5).astype(np.float32)
    reference = (logits + rng.normal(size=logits.shape)).astype(np.float32)
    targets = rng.integers(0, vocab, 9).astype(np.int32)
    got = _core.score(logits, targets, reference, threads, isa)
    q, p = log_softmax(logits), log_softmax(reference)
    rows = np.arange(9)
    # the log-sum-exp is a float32 of size up to ~30: half an ulp of 32 is 2^-20; its sum and exponentials add a few
    assert np.abs(got["nll"] + q[rows, targets]).max() < 16 * 2.0**-20
    assert np.abs(got["nll_reference"] + p[rows, targets]).max() < 16 * 2.0**-20
    assert np.abs(got["kl"] - (np.exp(p) * (p - q)).sum(axis=1)).max() < 64 * 2.0**-20
    assert np.array_equal(got["same_top"].astype(bool), logits.argmax(axis=1) == reference.argmax(axis=1))


def test_equal_logits_diverge_by_nothing(isa):
    logits = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    got = _core.score(logits, np.zeros(3, np.int32), logits, 1, isa)
    assert np.all(got["kl"] == 0)
    assert np.all(got["same_top"] == 1)


def test_huge_logits_do_not_overflow(isa):
    logits = np.array([[1e30, -1e30, 0.0, 5.0]], np.float32)
    got = _core.score(logits, np.array([0], np.int32), logits, 1, isa)
    assert got["nll"][0] == 0
    assert got["kl"][0] == 0


def test_without_a_reference_only_the_likelihood_comes_back():
    got = _core.score(np.zeros((2, 4), np.float32), np.array([1, 2], np.int32))
    assert set(got) == {"nll"}
    assert np.allclose(got["nll"], np.log(4), atol=1e-6)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [(np.zeros((2, 4), np.float32), np.array([0, 4], np.int32)),
     (np.zeros((2, 4), np.float32), np.array([-1, 0], np.int32)),
     (np.zeros((2, 4), np.float32), np.array([0], np.int32))],
)  # fmt: skip
def test_targets_out_of_range_are_refused(logits, targets):
    with pytest.raises(ValueError, match="target"):
        _core.score(logits, targets)
