"""Perplexity and divergence against the same sums done by hand in float64."""

import math

import numpy as np
import pytest
from bigram import Bigram, log_softmax, random_table

from scrimp.errors import Refused
from scrimp.measure import scores as scores_module
from scrimp.measure.divergence import divergence
from scrimp.measure.error_bars import mean_error, windowed_error
from scrimp.measure.perplexity import perplexity, unigram_nll
from scrimp.measure.scores import Scores, score
from scrimp.measure.windows import cut

V = 11

# The logits are the same floats on both sides; the core adds V exponentials in float32 (relative error at most about
# V * 2^-24 each way) and rounds a log-sum-exp below 16 to float32 (2^-21): together under 2e-6 nats.
LOG_SUM_EXP_ERROR = 2e-6


def score_one(model, windows, reference=None):
    return score([model], windows, reference=reference)[0]


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(0, V, count).tolist()


def test_nll_is_the_mean_over_scored_tokens():
    table, windows = random_table(1, V), cut(tokens(40), 8)
    found = perplexity(score_one(Bigram(table), windows), windows, V)
    by_hand = [
        -log_softmax(table[window[i]])[window[i + 1]]
        for window in windows.tokens.tolist()
        for i in range(len(window) - 1)
    ]
    assert found.tokens == len(by_hand) == 5 * 7
    assert found.nll == pytest.approx(np.mean(by_hand), abs=LOG_SUM_EXP_ERROR)
    assert found.ppl == pytest.approx(math.exp(found.nll), rel=1e-12)
    means = np.array(by_hand).reshape(5, 7).mean(axis=1)
    error = math.sqrt(((means - means.mean()) ** 2).sum() / 4 / 5)
    assert found.nll_se == pytest.approx(error, abs=LOG_SUM_EXP_ERROR)
    assert found.ppl_se == pytest.approx(found.ppl * found.nll_se, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunks_change_nothing(chunk, monkeypatch):
    table, windows = random_table(1, V), cut(tokens(40), 8)
    whole = score_one(Bigram(table), windows).nll
    monkeypatch.setattr(scores_module, "CHUNK", chunk)
    model = Bigram(table)
    assert np.array_equal(score_one(model, windows).nll, whole)
    assert max(len(ran) for ran, _ in model.calls) == min(chunk, 7)
    starts = [start for _, start in model.calls][: math.ceil(7 / chunk)]
    assert starts == list(range(0, 7, chunk)), "each chunk continues where the last one ended"


def test_the_last_token_of_a_window_is_not_run():
    model, windows = Bigram(random_table(1, V)), cut(tokens(16), 8)
    score_one(model, windows)
    assert [ran for ran, _ in model.calls] == [window[:-1] for window in windows.tokens.tolist()]


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    windows = cut(tokens(40), 8)
    found = perplexity(score_one(Bigram(np.zeros((V, V))), windows), windows, V)
    assert found.ppl == pytest.approx(V, rel=1e-6)
    assert found.nll_se == pytest.approx(0, abs=1e-7)


def test_one_window_has_no_error_estimate():
    windows = cut(tokens(8), 8)
    assert math.isnan(perplexity(score_one(Bigram(random_table(1, V)), windows), windows, V).nll_se)


def test_correlated_tokens_widen_the_error():
    """Tokens that all repeat their window's mood: only the windows are independent."""
    moods = np.array([1.0, 2.0, 3.0, 6.0])
    values = np.repeat(moods[:, None], 50, axis=1)
    assert windowed_error(values) == pytest.approx(moods.std(ddof=1) / 2)
    assert windowed_error(values) > 6 * mean_error(values.ravel())


def test_unigram_nll_is_the_smoothed_word_count():
    targets = np.array([[0, 0, 0], [1, 2, 2]], np.int32)
    p = {0: 4 / 11, 1: 2 / 11, 2: 3 / 11}  # (count + 1) / (6 + 5)
    by_hand = -np.mean([math.log(p[token]) for token in targets.ravel().tolist()])
    assert unigram_nll(targets, 5) == pytest.approx(by_hand, rel=1e-12)


def test_a_model_worse_than_word_counts_is_broken():
    text = [0, 1] * 50
    windows = cut(text, 10)
    good = np.full((V, V), -3.0)
    good[0, 1] = good[1, 0] = 3.0
    assert not perplexity(score_one(Bigram(good), windows), windows, V).broken
    assert perplexity(score_one(Bigram(-good), windows), windows, V).broken


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_answers_nonsense_is_broken(value):
    table = random_table(1, V)
    table[:, 3] = value
    windows = cut(tokens(40), 8)
    assert perplexity(score_one(Bigram(table), windows), windows, V).broken


def test_an_nll_beyond_floats_is_an_infinite_perplexity():
    windows = cut([0, 1] * 8, 8)
    assert perplexity(Scores(np.full((2, 7), 5000.0)), windows, V).ppl == math.inf


def test_divergence_is_that_of_the_two_distributions():
    windows, rng = cut(tokens(64), 8), np.random.default_rng(5)
    p_table = random_table(1, V)
    q_table = (p_table + rng.normal(0, 0.3, (V, V))).astype(np.float32)
    found = divergence(score_one(Bigram(q_table), windows, reference=Bigram(p_table)))
    contexts, targets = windows.tokens[:, :-1].ravel(), windows.targets.ravel()
    p, q = log_softmax(p_table[contexts]), log_softmax(q_table[contexts])
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    at = np.arange(len(targets))
    assert found.kl_mean == pytest.approx(kl.mean(), abs=LOG_SUM_EXP_ERROR)
    assert found.kl_median == pytest.approx(np.median(kl), abs=LOG_SUM_EXP_ERROR)
    assert found.kl_p99 == pytest.approx(np.quantile(kl, 0.99), abs=LOG_SUM_EXP_ERROR)
    assert found.same_top == pytest.approx((p.argmax(1) == q.argmax(1)).mean(), abs=1e-12)
    assert 0 < found.same_top < 1
    assert found.nll_reference == pytest.approx(-p[at, targets].mean(), abs=LOG_SUM_EXP_ERROR)
    change = (p - q)[at, targets].reshape(8, 7)
    assert found.nll_change == pytest.approx(change.mean(), abs=LOG_SUM_EXP_ERROR)
    assert found.nll_change_se == pytest.approx(change.mean(axis=1).std(ddof=1) / math.sqrt(8), abs=LOG_SUM_EXP_ERROR)


def test_a_model_does_not_diverge_from_itself():
    table, windows = random_table(1, V), cut(tokens(64), 8)
    found = divergence(score_one(Bigram(table), windows, reference=Bigram(table)))
    assert (found.kl_mean, found.same_top, found.nll_change) == (0.0, 1.0, 0.0)


def test_model_and_reference_run_in_lockstep(monkeypatch):
    monkeypatch.setattr(scores_module, "CHUNK", 3)
    order = []
    model, reference = Bigram(random_table(1, V)), Bigram(random_table(2, V))
    for name, network in (("model", model), ("reference", reference)):
        inner = network.logits
        network.logits = lambda t, start=0, name=name, inner=inner: (order.append(name), inner(t, start))[1]
    score_one(model, cut(tokens(16), 8), reference=reference)
    assert order == ["reference", "model"] * 6


def test_models_side_by_side_are_scored_as_if_alone():
    windows, reference = cut(tokens(40), 8), Bigram(random_table(3, V))
    models = [Bigram(random_table(1, V)), Bigram(random_table(2, V))]
    together = score(models, windows, reference=reference)
    assert len(reference.calls) == len(windows.tokens), "the reference runs once for all"
    for model, found in zip(models, together, strict=True):
        alone = score_one(model, windows, reference=reference)
        assert np.array_equal(found.nll, alone.nll)
        assert np.array_equal(found.kl, alone.kl)


def test_vocabularies_that_differ_are_refused():
    with pytest.raises(Refused, match=r"vocabularies of 11, 12"):
        score_one(Bigram(random_table(1, V)), cut(tokens(16), 8), reference=Bigram(random_table(1, 12)))


def test_a_window_longer_than_the_context_is_refused():
    with pytest.raises(Refused, match=r"window of 8 tokens exceeds the context of 6"):
        score_one(Bigram(random_table(1, V), context=6), cut(tokens(16), 8))


def test_a_token_the_network_does_not_have_is_refused():
    with pytest.raises(Refused, match=r"has token 11, and the model's vocabulary only 11"):
        score_one(Bigram(random_table(1, V)), cut([11] * 16, 8))
