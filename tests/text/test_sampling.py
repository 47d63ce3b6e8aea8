from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scrimp.errors import ScrimpError, UsageError
from scrimp.text.sampling import FIRST_LOOK, GREEDY, Sampling, candidates, penalized, sample

LOGITS = arrays(np.float32, st.integers(1, 50), elements=st.floats(-30, 30, width=32))
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    repeat_penalty=st.floats(0.5, 2),
    seed=st.integers(0, 99),
)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    return weights / weights.sum()


@given(LOGITS)
def test_greedy_takes_the_first_of_the_best(logits: np.ndarray) -> None:
    best = [i for i, value in enumerate(logits) if value == max(logits)]
    assert sample(logits, [], GREEDY, GREEDY.generator()) == best[0]


@given(LOGITS, SAMPLINGS)
def test_candidates_are_a_distribution_with_the_best_token_in_it(logits: np.ndarray, sampling: Sampling) -> None:
    ids, probabilities = candidates(logits, [], sampling)
    assert len(set(ids.tolist())) == len(ids) >= 1
    assert math.isclose(probabilities.sum(), 1, rel_tol=1e-12)
    likeliness = np.exp((logits.astype(np.float64) - logits.max()) / sampling.temperature)  # may round to equals
    assert likeliness[ids].max() == likeliness.max()
    assert sampling.top_k == 0 or len(ids) <= sampling.top_k


@given(LOGITS, SAMPLINGS)
def test_the_same_seed_draws_the_same_tokens(logits: np.ndarray, sampling: Sampling) -> None:
    first, second = sampling.generator(), sampling.generator()
    assert [sample(logits, [], sampling, first) for _ in range(5)] == [
        sample(logits, [], sampling, second) for _ in range(5)
    ]


@given(LOGITS, st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits: np.ndarray, top_p: float) -> None:
    ids, _ = candidates(logits, [], Sampling(top_p=top_p))
    kept = np.sort(softmax(logits)[ids])[::-1]
    others = np.delete(softmax(logits), ids)
    rounding = len(logits) * np.finfo(np.float64).eps
    assert kept.sum() >= top_p - rounding
    assert kept[:-1].sum() < top_p + rounding
    assert others.max(initial=0) <= kept[-1] + rounding


def test_top_p_looks_beyond_its_first_candidates() -> None:
    logits = np.zeros(FIRST_LOOK * 20, np.float32)
    ids, _ = candidates(logits, [], Sampling(top_p=0.4999))
    assert len(ids) == FIRST_LOOK * 10


@given(LOGITS, st.integers(1, 50))
def test_top_k_keeps_the_k_best(logits: np.ndarray, k: int) -> None:
    ids, _ = candidates(logits, [], Sampling(top_k=k))
    assert sorted(logits[ids]) == sorted(logits)[-k:]


def test_min_p_keeps_tokens_of_a_share_of_the_best() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float64))
    assert candidates(logits, [], Sampling(min_p=0.2))[0].tolist() == [0, 1, 2]


def test_a_repeated_token_becomes_less_likely_whatever_its_sign() -> None:
    logits = np.array([2.0, -2.0, 1.0], np.float32)
    assert penalized(logits, [0, 0, 1, 77, -5], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0]


def test_the_penalty_comes_before_the_choice_of_the_best() -> None:
    assert sample(np.array([2.0, 1.5]), [0], Sampling(temperature=0, repeat_penalty=2.0), GREEDY.generator()) == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=1),
        Sampling(seed=2, temperature=0.7, top_k=6),
        Sampling(seed=3, temperature=1.5, top_p=0.9),
        Sampling(seed=4, min_p=0.1, repeat_penalty=1.3),
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(sampling: Sampling) -> None:
    """Chi-square with a fixed seed: 99.9 % quantiles of the distribution for the degrees of freedom that occur."""
    quantile = {3: 16.3, 4: 18.5, 5: 20.5, 6: 22.5, 7: 24.3, 8: 26.1, 9: 27.9}
    logits = np.log(np.arange(1, 11, dtype=np.float64))
    ids, probabilities = candidates(logits, [9], sampling)
    rng, draws = sampling.generator(), 20_000
    counts = np.bincount([sample(logits, [9], sampling, rng) for _ in range(draws)], minlength=10)
    assert counts.sum() == counts[ids].sum()
    chi_square = float((((counts[ids] - draws * probabilities) ** 2) / (draws * probabilities)).sum())
    assert chi_square < quantile[len(ids) - 1]


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    rng = Sampling(seed=5).generator()
    assert {sample(logits, [], Sampling(), rng) for _ in range(200)} == {1, 3}


@pytest.mark.parametrize(("draw", "token"), [(0.0, 1), (np.nextafter(1.0, 0.0), 3)])
def test_the_lowest_and_the_highest_draw_are_tokens_that_may_come(draw: float, token: int) -> None:
    class Fixed:
        def random(self) -> float:
            return draw

    logits = np.array([-np.inf, 0.0, 0.1, 0.3, -np.inf])
    assert sample(logits, [], Sampling(), Fixed()) == token  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf], []])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_broken_logits_are_an_error_and_no_token(bad: list[float], temperature: float) -> None:
    with pytest.raises(ScrimpError, match="broken down"):
        sample(np.array(bad, np.float32), [], Sampling(temperature=temperature), GREEDY.generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"temperature": "hot"},
        {"top_k": -1}, {"top_k": 1.5}, {"top_k": True}, {"top_p": 0}, {"top_p": 1.1}, {"top_p": math.nan},
        {"min_p": -0.1}, {"min_p": 2}, {"repeat_penalty": 0}, {"repeat_penalty": math.nan}, {"seed": -1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_a_large_vocabulary_is_sampled_in_milliseconds() -> None:
    import time

    logits = np.random.default_rng(0).normal(0, 3, 262_144).astype(np.float32)
    for sampling in (GREEDY, Sampling(top_k=40, seed=1), Sampling(top_p=0.5, seed=1), Sampling(seed=1)):
        rng, times = sampling.generator(), []
        for _ in range(5):
            began = time.perf_counter()
            sample(logits, [], sampling, rng)
            times.append(time.perf_counter() - began)
        assert min(times) < 0.05  # sorting all of it in every step would take several times as long


@given(LOGITS, SAMPLINGS, st.lists(st.integers(0, 49), max_size=5))
def test_probabilities_equal_those_of_transformers(logits: np.ndarray, sampling: Sampling, history: list[int]) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    history = [i for i in history if i < len(logits)]
    spread = np.unique(logits + np.arange(len(logits), dtype=np.float32) * np.float32(1e-2))
    if len(spread) != len(logits):
        return  # which of equals is cut away, the two libraries need not agree on
    steps = []
    if history:
        steps.append(process.RepetitionPenaltyLogitsProcessor(sampling.repeat_penalty))
    if sampling.top_k:
        steps.append(process.TopKLogitsWarper(sampling.top_k))
    steps.append(process.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_p < 1:
        steps.append(process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        steps.append(process.MinPLogitsWarper(sampling.min_p))
    scores = torch.tensor(spread.astype(np.float64))[None]
    for step in steps:
        scores = step(torch.tensor([history], dtype=torch.int64), scores)
    theirs = torch.softmax(scores, -1)[0].numpy()
    ids, probabilities = candidates(spread.astype(np.float64), history, sampling)
    ours = np.zeros(len(spread))
    ours[ids] = probabilities
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-12) or near_a_border(spread, history, sampling)


def near_a_border(logits: np.ndarray, history: list[int], sampling: Sampling) -> bool:
    """Whether rounding decides which tokens stay: a sum within rounding of top_p, a share of min_p, or equals."""
    rounding = 1e-12
    scores = penalized(logits.astype(np.float64), history, sampling.repeat_penalty)
    if len(np.unique(scores)) != len(scores):
        return True
    order = np.sort(scores)[::-1][: sampling.top_k or len(scores)]
    probabilities = softmax(order / sampling.temperature)
    by_sum = np.abs(np.cumsum(probabilities) - sampling.top_p).min() < rounding
    by_share = np.abs(probabilities / probabilities[0] - sampling.min_p).min() < rounding
    return bool(by_sum or by_share)
