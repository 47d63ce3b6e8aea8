import pytest

from scrimp.errors import Refused, UsageError
from scrimp.measure.windows import cut, default_text, read_text


def test_windows_are_consecutive_and_do_not_overlap():
    windows = cut(list(range(12)), 4)
    assert windows.tokens.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert windows.targets.tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11]]
    assert windows.dropped == 0


def test_a_ragged_last_window_is_dropped_and_said_so():
    windows = cut(list(range(11)), 4)
    assert windows.tokens.shape == (2, 4)
    assert windows.dropped == 3
    assert "3 tokens at the end not used" in windows.protocol


def test_bos_comes_first_and_costs_no_token_of_the_text():
    windows = cut(list(range(9)), 4, bos=99)
    assert windows.tokens.tolist() == [[99, 0, 1, 2], [99, 3, 4, 5], [99, 6, 7, 8]]
    assert windows.targets.ravel().tolist() == list(range(9))
    assert "BOS and 3 of the text" in windows.protocol


@pytest.mark.parametrize(("max_tokens", "count"), [(4, 1), (7, 1), (8, 2), (1000, 3)])
def test_max_tokens_bounds_the_tokens_of_all_windows(max_tokens, count):
    windows = cut(list(range(12)), 4, max_tokens=max_tokens)
    assert len(windows.tokens) == count
    assert windows.bounded == (count < 3)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(Refused, match="3 tokens, fewer than one window of 4"):
        cut([1, 2, 3], 4)


def test_an_empty_text_is_refused():
    with pytest.raises(Refused, match="0 tokens"):
        cut([], 4)


def test_less_than_a_window_at_most_is_a_usage_error():
    with pytest.raises(UsageError, match="less than one window of 4"):
        cut(list(range(12)), 4, max_tokens=3)


@pytest.mark.parametrize("context", [1, 0, -5])
def test_a_context_that_scores_nothing_is_a_usage_error(context):
    with pytest.raises(UsageError, match="no token to score"):
        cut(list(range(12)), context)


def test_the_text_that_ships_is_plain_prose():
    text = default_text()
    assert 200_000 <= len(text.encode()) <= 300_000
    assert text.startswith("Chapter 1\n\nSir Walter Elliot, of Kellynch Hall")
    assert not set(text) & set("_<>[]{}\t\r")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(Refused, match="not UTF-8 text"):
        read_text(tmp_path / "latin.txt")
