"""The pool of pages by itself: what is shared, found, forgotten and refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp.engine.pages import PAGE, ROOT, Pages
from scrimp.errors import Full


def filled(pages, *stretches):
    """A chain of pages that hold these tokens."""
    chain = []
    for tokens in stretches:
        chain.append(pages.take(chain[-1] if chain else ROOT))
        pages.append(chain[-1], tokens)
    return chain


def release(pages, chain):
    for page in reversed(chain):
        pages.release(page)


WHOLE = list(range(PAGE))


def test_the_longest_beginning_is_found():
    pages = Pages(10)
    a = filled(pages, WHOLE, [1, 2, 3])
    b = filled(pages, [*WHOLE[:-1], 0], [1, 2, 3])
    c = filled(pages, [5])
    assert pages.find([*WHOLE, 1, 2, 9]) == (a, PAGE + 2)
    assert pages.find([*WHOLE[:-1], 0, 1]) == (b, PAGE + 1)
    assert pages.find(WHOLE[:7]) in [(a[:1], 7), (b[:1], 7)]
    assert pages.find([5, 5]) == (c, 1)
    assert pages.find([9]) == pages.find([]) == ([], 0)


def test_a_text_of_thousands_of_pages_is_forgotten_at_once():
    pages = Pages(5000)
    chain = filled(pages, *[[i] * PAGE for i in range(5000)])
    release(pages, chain[1:])
    pages.cut(chain[0], PAGE - 1)
    assert pages.find([0] * PAGE + [1] * PAGE) == (chain[:1], PAGE - 1)
    assert pages.available == 4999
    pages.release(chain[0])
    assert len({pages.take(ROOT) for _ in range(5000)}) == 5000


def test_pages_of_the_tree_are_kept_until_they_are_needed_the_ends_first():
    pages = Pages(4)
    old, new = (
        filled(pages, WHOLE, [1]),
        filled(
            pages,
            [7],
        ),
    )
    release(pages, old)
    release(pages, new)
    assert pages.available == 4
    assert pages.find([*WHOLE, 1]) == (old, PAGE + 1)
    assert pages.take(None) not in {*old, *new}, "one that was never used comes first"
    taken = [pages.take(None)]
    assert taken == old[1:]
    assert pages.find([*WHOLE, 1]) == (old[:1], PAGE)
    assert [pages.take(None), pages.take(None)] == [*old[:1], *new]
    with pytest.raises(Full, match=r"1 more pages .* 0 of 4"):
        pages.take(None)
    assert pages.find([7]) == ([], 0)


def test_a_cut_forgets_what_followed():
    pages = Pages(4)
    first, second = filled(pages, WHOLE, [1, 2])
    pages.release(second)
    pages.cut(first, 3)
    assert pages.find(WHOLE) == ([first], 3)
    pages.append(first, WHOLE[3:])
    assert pages.find([*WHOLE, 1, 2]) == ([first], PAGE)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans()), max_size=40))
def test_nothing_is_lost_and_nothing_is_used_twice(plan):
    """Chains of few different tokens, that come and go in any order in a pool that is too small for them."""
    pages, live = Pages(7), []
    for token, length, leaves in plan:
        if leaves and live:
            release(pages, live.pop(token % len(live))[0])
            continue
        tokens = [token] * (length * PAGE)
        chain, known = pages.find(tokens)
        assert all(pages.tokens(page) == tokens[:PAGE] for page in chain)
        assert known == len(chain) * PAGE
        for page in chain:
            pages.share(page)
        try:
            for _ in range(length - len(chain)):
                chain.append(pages.take(chain[-1] if chain else ROOT))
                pages.append(chain[-1], tokens[:PAGE])
        except Full:
            assert pages.available == 0
        live.append((chain, tokens))
        used = {page for chain, _ in live for page in chain}
        assert pages.available == 7 - len(used)
        for chain, tokens in live:
            assert pages.find(tokens)[0][: len(chain)] == chain
    for chain, _ in live:
        release(pages, chain)
    assert pages.available == 7
    assert len([pages.take(None) for _ in range(7)]) == 7
