from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrimp.errors import UsageError
from scrimp.text.stop import StopMatcher

TEXT = st.text("ab<|", max_size=30)
STOPS = st.lists(st.text("ab<|", min_size=1, max_size=5), max_size=3)


def before_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """The slow truth: the first place where a stop ends, and of several the longest."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@given(STOPS, st.lists(TEXT, max_size=8))
def test_any_cutting_gives_what_a_search_of_the_whole_gives(stops: list[str], chunks: list[str]) -> None:
    matcher, out, stopped = StopMatcher(stops), "", False
    for chunk in chunks:
        text, stopped = matcher.push(chunk)
        out += text
    assert (out + matcher.flush(), stopped) == before_stop("".join(chunks), stops)


@given(STOPS, st.lists(TEXT, max_size=8))
def test_no_more_is_held_back_than_may_begin_a_stop(stops: list[str], chunks: list[str]) -> None:
    matcher, out, so_far = StopMatcher(stops), "", ""
    for chunk in chunks:
        text, stopped = matcher.push(chunk)
        if stopped:
            return
        out, so_far = out + text, so_far + chunk
        beginnings = [stop[:n] for stop in stops for n in range(1, len(stop)) if so_far.endswith(stop[:n])]
        assert len(so_far) - len(out) == max(map(len, beginnings), default=0)


def test_a_stop_across_three_pieces_is_found() -> None:
    matcher = StopMatcher(["\nUser:"])
    assert [matcher.push(piece) for piece in ("Hi\n", "Use", "r: more")] == [("Hi", False), ("", False), ("", True)]


def test_a_false_start_is_let_through() -> None:
    matcher = StopMatcher(["aab"])
    assert matcher.push("aa") == ("", False)
    assert matcher.push("a") == ("a", False)
    assert matcher.push("c") == ("aac", False)


def test_after_a_stop_everything_is_dropped() -> None:
    matcher = StopMatcher(["."])
    assert matcher.push("a.b") == ("a", True)
    assert matcher.push("c") == ("", True)
    assert matcher.flush() == ""


def test_of_two_stops_complete_at_once_the_longer_counts() -> None:
    for stops in (["b", "ab"], ["ab", "b"]):
        assert StopMatcher(stops).push("xab") == ("x", True)


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        StopMatcher([""])


def test_a_long_stop_costs_no_more_than_its_length() -> None:
    import time

    matcher = StopMatcher(["a" * 100_000 + "b"])
    began = time.perf_counter()
    for _ in range(40):
        matcher.push("a" * 10_000)
    assert time.perf_counter() - began < 5  # a rescan of the held text per push would take minutes
