"""Tasks: what is read from files, and whether the right ending wins, worked out by hand."""

import json
from itertools import pairwise

import numpy as np
import pytest
from bigram import Bigram, Words, log_softmax, random_table

from scrimp.errors import Refused
from scrimp.measure import task_files
from scrimp.measure.task_files import Item, Task
from scrimp.measure.tasks import common_prefix, likelihoods, solve

WORDS = Words("the cat sat on a mat dog ran far away")
V = len(WORDS.ids)


def network(table):
    return Bigram(table, tokenizer=WORDS)


def loves(*pairs):
    """A table in which each pair of words follows each other more willingly than anything else, in falling order."""
    table = np.zeros((V, V), np.float32)
    for strength, (word, follower) in enumerate(reversed(pairs), 1):
        table[WORDS.ids[word], WORDS.ids[follower]] = 2.0 * strength
    return table


def test_the_log_likelihood_is_the_sum_over_the_choice():
    table = random_table(3, V)
    found = likelihoods(Item("the cat", ("sat on", "ran far away"), 0), network(table), "here")
    log_p = log_softmax(table)
    for one, path in zip(found, (["cat", "sat", "on"], ["cat", "ran", "far", "away"]), strict=True):
        ids = [WORDS.ids[word] for word in path]
        by_hand = sum(log_p[a, b] for a, b in pairwise(ids))
        assert one.log_likelihood == pytest.approx(by_hand, abs=1e-5)


def test_the_context_is_run_once_and_choices_continue_from_it():
    model = network(random_table(3, V))
    likelihoods(Item("the cat", ("sat on a", "ran far away"), 0), model, "here")
    assert model.calls[0] == (WORDS.encode("the cat"), 0)
    assert model.calls[1:] == [(WORDS.encode("sat on"), 2), (WORDS.encode("ran far"), 2)]


def test_the_likeliest_choice_is_the_answer():
    task = Task("t", "choice", (Item("the cat", ("sat", "ran"), 1), Item("the dog", ("sat", "ran"), 0)))
    result = solve(task, network(loves(("cat", "ran"), ("dog", "ran"))))
    assert (result.n, result.accuracy, result.chance) == (2, 0.5, 0.5)
    assert result.accuracy_se == pytest.approx(0.5)  # std of (1, 0) with n - 1, over sqrt 2


def test_length_lets_a_long_ending_win():
    """A word costs about ln 10: the short ending wins the sum, the long one the mean per byte."""
    table = np.zeros((V, V), np.float32)
    table[WORDS.ids["cat"], WORDS.ids["sat"]] = -1.0
    task = Task("t", "choice", (Item("the cat", ("sat", "ran far away"), 1),))
    result = solve(task, network(table))
    assert (result.accuracy, result.accuracy_norm) == (0.0, 1.0)


def test_a_cloze_needs_every_token_to_be_the_likeliest():
    item = Item("the cat", ("sat on",), 0)
    both = loves(("cat", "sat"), ("sat", "on"))
    assert solve(Task("t", "cloze", (item,)), network(both)).accuracy == 1.0
    assert solve(Task("t", "cloze", (item,)), network(loves(("cat", "sat"), ("sat", "a")))).accuracy == 0.0
    assert solve(Task("t", "cloze", (item,)), network(both)).accuracy_norm is None


def test_a_choice_that_begins_another_still_has_a_token_to_score():
    found = likelihoods(Item("the cat", ("sat", "sat on"), 0), network(random_table(3, V)), "here")
    assert found[0].log_likelihood > found[1].log_likelihood


def test_an_item_longer_than_the_context_is_refused():
    model = Bigram(random_table(3, V), context=3, tokenizer=WORDS)
    with pytest.raises(Refused, match=r"t, item 1 has 4 tokens"):
        solve(Task("t", "choice", (Item("the cat", ("sat on", "ran"), 0),)), model)


def test_common_prefix_of_one_and_of_none():
    assert common_prefix([[1, 2]]) == [1, 2]
    assert common_prefix([[1], [2]]) == []


def test_six_lines_are_a_task(tmp_path):
    path = tmp_path / "hella.txt"
    path.write_text("A man is\n2\none.\ntwo.\nthree.\nfour.\nA dog\n0\na\nb\nc\nd\n\n")
    task = task_files.read(path)
    assert (task.name, task.kind) == ("hella", "choice")
    assert task.items[0] == Item("A man is", ("one.", "two.", "three.", "four."), 2)
    assert len(task.items) == 2
    assert len(task_files.read(path, limit=1).items) == 1


def test_a_question_is_answered(tmp_path):
    path = tmp_path / "piqa.jsonl"
    path.write_text(json.dumps({"query": "Question: How?\n", "choices": ["so", "thus"], "gold": 1}) + "\n")
    assert task_files.read(path).items == (Item("Question: How?\nAnswer:", ("so", "thus"), 1),)


def test_a_continuation_is_a_cloze(tmp_path):
    path = tmp_path / "lambada.jsonl"
    path.write_text(json.dumps({"context": "I said ", "continuation": "so"}))
    assert task_files.read(path) == Task("lambada", "cloze", (Item("I said", ("so",), 0),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a\nb\nc\n", "neither JSON nor a multiple of 6"),
        ("ctx\n7\na\nb\nc\nd\n", "line 2: '7' is no label"),
        ("ctx\n1\na\n\nc\nd\n", "has an empty text"),
        ('{"query": "q", "choices": ["a", "b"], "gold": 0}\n{broken', "line 2 is no JSON object"),
        ('{"query": "q", "choices": ["a", "b"], "gold": 2}', "line 1 is no task"),
        ('{"query": "q", "choices": ["a"], "gold": 0}', "line 1 is no task"),
        ('{"query": "q", "choices": ["a", 3], "gold": 0}', "line 1 is no task"),
        ('{"query": "q", "choices": "ab", "gold": 0}', "line 1 is no task"),
        ('{"context": "q", "continuation": 4}', "needs context and continuation"),
        ('{"context": " ", "continuation": "x"}', "has an empty text"),
        ("{" * 100_000, "no JSON object"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text, message, tmp_path):
    path = tmp_path / "task"
    path.write_text(text)
    with pytest.raises(Refused, match=message):
        task_files.read(path)
