"""The knapsack against every allocation there is, on cases small enough to try them all."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp.quantize.allocate import Option, allocate, cheapest

OPTION = st.builds(Option, st.integers(1, 40), st.integers(0, 60).map(float))
ITEMS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


def every(items):
    for chosen in product(*(range(len(options)) for options in items)):
        picked = [options[at] for options, at in zip(items, chosen, strict=True)]
        yield sum(o.nbytes for o in picked), sum(o.cost for o in picked)


@settings(max_examples=400, deadline=None)
@given(ITEMS, st.integers(0, 200))
def test_it_fits_and_its_bound_holds_for_every_allocation(items, limit):
    found = allocate(items, limit)
    costs = [cost for size, cost in every(items) if size <= limit]
    assert (found is None) == (not costs)
    if found is not None:
        picked = [options[at] for options, at in zip(items, found.chosen, strict=True)]
        assert found.nbytes == sum(o.nbytes for o in picked) <= limit
        assert found.cost == pytest.approx(sum(o.cost for o in picked))
        assert found.bound <= min(costs) + 1e-9
        largest_step = max(max(o.cost for o in options) - min(o.cost for o in options) for options in items)
        assert min(costs) <= found.cost + 1e-9 <= found.bound + largest_step + 2e-9


@settings(max_examples=200, deadline=None)
@given(ITEMS)
def test_with_room_for_everything_it_is_the_cheapest_there_is(items):
    found = allocate(items, 10**6)
    assert found is not None
    assert found.cost == found.bound == sum(min(o.cost for o in options) for options in items)


@settings(max_examples=200, deadline=None)
@given(ITEMS, st.integers(0, 300).map(float))
def test_a_limit_on_the_cost_is_kept_or_nothing_can_keep_it(items, limit):
    found = cheapest(items, limit)
    possible = [size for size, cost in every(items) if cost <= limit]
    assert (found is None) == (not possible)
    if found is not None:
        assert found.cost <= limit
        assert found.nbytes >= min(possible)


def test_options_that_are_larger_and_no_better_are_never_taken():
    found = allocate([[Option(1, 5.0), Option(3, 5.0), Option(2, 7.0)]], 10)
    assert found is not None
    assert found.chosen == (0,)
