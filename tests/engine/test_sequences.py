"""Many sequences in one step: each has the bits it has alone, whatever its neighbours do and whatever it shares."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_network import tiny_engine

from scrimp import _core
from scrimp.engine.pages import PAGE
from scrimp.errors import Full, UsageError

CONTEXT, COUNT = 200, 5
KINDS = ("f16", "f32", "int8", "int4")
STEM = [int(t) for t in np.random.default_rng(5).integers(0, 97, CONTEXT)]

lengths = st.one_of(st.sampled_from([1, 2, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE]), st.integers(1, 40))
#: What to do, with which sequences, how many tokens, and whether they go on like the others or differently.
actions = st.tuples(
    st.sampled_from(["open", "open", "extend", "extend", "extend", "fork", "rewind", "drop"]),
    st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    st.lists(lengths, min_size=4, max_size=4),
    st.booleans(),
)


@cache
def engines(isa, kv):
    """One for many sequences, in runs of at most 48 tokens and with fewer pages than they may want, and one where each
    is alone."""
    limit = 12 * tiny_engine(isa=isa, kv=kv).pages.size_bytes
    many = tiny_engine(isa=isa, kv=kv, context=CONTEXT, sequences=COUNT, chunk=48, cache_bytes=limit)
    return many, tiny_engine(isa=isa, kv=kv, context=CONTEXT)


@cache
def alone(isa, kv, tokens):
    return engines(isa, kv)[1].forward(list(tokens), 0, all_logits=True)


def continuation(tokens, count, follow):
    """More tokens: those that most sequences have, or others."""
    count = min(count, CONTEXT - len(tokens))
    after = STEM[len(tokens) : len(tokens) + count]
    return after if follow else [(t + 1 + len(tokens)) % 97 for t in after]


def play(isa, kv, plan):
    """Every logit that comes out, compared with the sequence alone; at the end all pages are unused."""
    many, _ = engines(isa, kv)
    live = []  # (sequence, its tokens)
    for what, which, counts, follow in plan:
        if what == "open" and len(live) < COUNT:
            tokens = continuation([], counts[0] + counts[1], True)
            sequence = many.sequences.open(tokens)
            assert sequence.length < len(tokens)
            live.append((sequence, tokens[: sequence.length]))
            which = [len(live) - 1]
        if not live:
            continue
        chosen = list({number % len(live): None for number in which})
        sequence, tokens = live[chosen[0]]
        if what in ("open", "extend"):
            work = [(live[i], continuation(live[i][1], n, follow)) for i, n in zip(chosen, counts, strict=False)]
            work = [(one, more) for one, more in work if more]
            wanted = [(n + 1) % (len(more) + 1) for n, (_, more) in enumerate(work)]
            available = many.pages.available
            try:
                found = many.sequences.extend([(sequence, more) for (sequence, _), more in work], wanted=wanted)
            except Full:
                assert many.pages.available == available
                assert all(sequence.tokens == tokens for sequence, tokens in live)
                continue
            for ((sequence, tokens), more), logits, w in zip(work, found, wanted, strict=True):
                tokens.extend(more)
                assert sequence.length == len(tokens)
                assert sequence.tokens == tokens
                expected = alone(isa, kv, tuple(tokens))
                assert np.array_equal(logits, expected[len(tokens) - w :])
        elif what == "fork" and len(live) < COUNT:
            live.append((sequence.fork(), tokens[:]))
        elif what == "rewind":
            sequence.rewind(max(0, len(tokens) - counts[0]))
            del tokens[sequence.length :]
        elif what == "drop":
            sequence.drop()
            del live[chosen[0]]
    for sequence, _ in live:
        sequence.drop()
    assert many.pages.available == many.pages.count


@pytest.mark.parametrize("kv", KINDS)
def test_every_sequence_has_the_bits_it_has_alone(isa, kv):
    @settings(max_examples=4 if isa == "scalar" else 15, deadline=None)
    @given(st.lists(actions, min_size=3, max_size=20))
    def examples(plan):
        play(isa, kv, plan)

    examples()


def test_prompts_and_single_tokens_share_a_step():
    """One reads 100 tokens in runs of 48 while others write one each: then all have what they have alone."""
    many, _ = engines(_core.available_isas()[-1], "f16")
    prompts = [[(t * k) % 97 for t in STEM] for k in (1, 2, 3)]
    live = [many.sequences.open() for _ in prompts]
    many.sequences.extend([(s, p[:7]) for s, p in zip(live[1:], prompts[1:], strict=True)])
    work = [(live[1], prompts[1][7:8]), (live[0], prompts[0][:100]), (live[2], prompts[2][7:8])]
    for (sequence, _), logits in zip(work, many.sequences.extend(work), strict=True):
        expected = alone(_core.available_isas()[-1], "f16", tuple(sequence.tokens))[-1:]
        assert np.array_equal(logits, expected)
        sequence.drop()


@pytest.fixture
def small():
    return tiny_engine(context=CONTEXT, sequences=3, threads=1)


def test_what_is_known_of_a_beginning_is_not_run_again(small):
    first = small.sequences.open(STEM[:100])
    assert first.length == 0
    small.sequences.extend([(first, STEM[:100])])
    held = small.pages.available
    for length, known in ((100, 99), (101, 100), (80, 79), (64, 63), (33, 32), (32, 31), (1, 0)):
        second = small.sequences.open(STEM[:length])
        assert second.length == known
        second.drop()
    third = small.sequences.open([*STEM[:50], 96, 96])
    assert (third.length, third.tokens) == (50, STEM[:50])
    assert small.pages.available == held, "what is shared takes no memory"
    small.sequences.extend([(third, [96])])
    assert small.pages.available == held - 1, "but the page that goes on differently"
    first.drop()
    third.drop()
    assert small.sequences.open(STEM[:90]).length == 89, "of those that were dropped, too"


def test_a_fork_copies_only_the_page_it_extends_second(small):
    first = small.sequences.open()
    small.sequences.extend([(first, STEM[:70])])
    free = small.pages.available
    second = first.fork()
    small.sequences.extend([(first, [1])])
    assert small.pages.available == free, "the first to go on writes where it was"
    small.sequences.extend([(second, [2])])
    assert small.pages.available == free - 1
    assert (first.tokens[70:], second.tokens[70:]) == ([1], [2])
    both = small.sequences.extend([(first, [3]), (second, [3])])
    assert not np.array_equal(*both)


def test_a_rewound_sequence_always_has_room():
    """Its page is cut, not copied, where nobody else has it: a context that was promised is there."""
    engine = tiny_engine(context=2 * PAGE, sequences=1, cache_bytes=2 * tiny_engine().pages.size_bytes)
    assert engine.pages.count == 2
    sequence = engine.sequences.open()
    for length in (100, 65, 64, 20, 1, 0):
        engine.sequences.extend([(sequence, STEM[sequence.length : 2 * PAGE])])
        sequence.rewind(length)
        found = engine.sequences.extend([(sequence, [5])])[0]
        assert np.array_equal(found, tiny_engine().forward([*STEM[:length], 5], 0))
        sequence.rewind(length)


def test_without_a_limit_every_sequence_has_its_whole_context(small):
    live = [small.sequences.open() for _ in range(3)]
    small.forward(STEM, 0)
    small.sequences.extend([(live[0], STEM)])
    for other in live[1:]:
        other.drop()
    live[1:] = [live[0].fork(), live[0].fork()]
    for sequence in live:
        sequence.rewind(3)
    small.sequences.extend([(s, [i] * (CONTEXT - 3)) for i, s in enumerate(live)])
    assert small.pages.available == 0


def test_a_full_cache_leaves_every_sequence_as_it_was():
    size = tiny_engine().pages.size_bytes
    engine = tiny_engine(context=CONTEXT, sequences=3, cache_bytes=4 * size + size // 2)
    assert engine.pages.count == 4
    first, second = engine.sequences.open(), engine.sequences.open()
    engine.sequences.extend([(first, STEM[:40]), (second, STEM[50:60])])
    third = first.fork()
    for work in (
        [(first, [1] * 100), (second, [2] * 60)],
        [(first, [1]), (third, [2] * 60), (second, [2] * 60)],
        [(second, [2] * 60), (first, [3] * 150)],
    ):
        before = engine.pages.available
        with pytest.raises(Full, match=r"3 more pages of the key/value cache are needed; 2 of 4 \("):
            engine.sequences.extend(work)
        assert engine.pages.available == before
        assert [s.tokens for s in (first, second, third)] == [STEM[:40], STEM[50:60], STEM[:40]]
    first.drop()
    assert engine.sequences.open([*STEM[:40], 1, 9]).length == 40, "what was not run is not found"


def test_an_interrupted_step_is_taken_back(small, monkeypatch):
    first, second = small.sequences.open(), small.sequences.open()
    small.sequences.extend([(first, STEM[:30]), (second, [7])])
    third = first.fork()
    run, calls = small.sequences._run, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        run(*arguments)

    monkeypatch.setattr(small.sequences, "chunk", 4)
    monkeypatch.setattr(small.sequences, "_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small.sequences.extend([(first, STEM[30:50]), (second, [8]), (third, [9])])
    monkeypatch.undo()
    assert (first.tokens, second.tokens, third.tokens) == (STEM[:34], [7], STEM[:30]), "four were run"
    rows = small.sequences.extend([(first, [1]), (second, [2]), (third, [3])])
    for sequence, logits in zip((first, second, third), rows, strict=True):
        assert np.array_equal(logits, tiny_engine(context=CONTEXT).forward(sequence.tokens, 0))
    for sequence in (first, second, third):
        sequence.drop()
    assert small.sequences.open(STEM[:60]).length == 34


def test_calls_that_make_no_sense_are_refused(small):
    first, second, third = (small.sequences.open() for _ in range(3))
    with pytest.raises(Full, match="All 3 sequences are open"):
        small.sequences.open()
    with pytest.raises(Full, match="All 3 sequences are open"):
        first.fork()
    third.drop()
    extend = small.sequences.extend
    other = tiny_engine(context=CONTEXT, sequences=1).sequences.open()
    calls = {
        "was dropped": [third.drop, third.fork, lambda: third.tokens, lambda: third.rewind(0),
                        lambda: extend([(first, [1]), (third, [1])])],
        "belongs to another model": [lambda: extend([(other, [1])]), lambda: extend([(7, [1])])],
        "no tokens to run": [lambda: extend([(first, [1]), (second, [])])],
        "201 tokens exceed the context of 200": [lambda: extend([(second, [1]), (first, [1] * 201)])],
        "Token 97 is not in": [lambda: extend([(first, [1]), (second, [97])])],
        "Token -1 is not in": [lambda: extend([(first, [1]), (second, [3, -1])])],
        "extended twice": [lambda: extend([(first, [1]), (first, [2])])],
        "Logits are wanted": [lambda: extend([(first, [1])], wanted=[2]), lambda: extend([(first, [1])], wanted=[-1]),
                              lambda: extend([(first, [1])], wanted=[1, 1])],
        "cannot be rewound to 1": [lambda: first.rewind(1)],
        "cannot be rewound to -1": [lambda: first.rewind(-1)],
    }  # fmt: skip
    for message, refused in calls.items():
        for call in refused:
            with pytest.raises(UsageError, match=message):
                call()
    assert (first.length, second.length, small.pages.available) == (0, 0, small.pages.count)
    assert extend([]) == []
    with pytest.raises(Full, match="opened without sequences"):
        tiny_engine().sequences.open()


@pytest.mark.parametrize(
    ("spans", "message"),
    [([(0, 0, 1, 1)], "spans must cover"), ([(0, 0, 3, 1)], "spans must cover"), ([(0, 0, 0, 0)], "spans must cover"),
     ([(0, 0, 1 << 62, 1), (0, 0, 1 << 62, 1)], "spans must cover"), ([], "spans must cover"),
     ([(-1, 0, 2, 1)], "no such sequence"), ([(2, 0, 2, 1)], "no such sequence"),
     ([(0, -1, 2, 1)], "positions exceed"), ([(0, CONTEXT - 1, 2, 1)], "positions exceed"),
     ([(0, 1 << 62, 2, 1)], "positions exceed"),
     ([(0, 0, 2, 3)], "logits are of tokens"), ([(0, 0, 2, -1)], "logits are of tokens"),
     ([(1, 0, 2, 1)], "no such page"), ([(0, 70, 2, 1)], "no such page"), ([(0, 0, 2, 2)], "logits must be")],
)  # fmt: skip
def test_the_core_refuses_spans_that_leave_its_memory(spans, message):
    engine = tiny_engine(context=CONTEXT)
    tables = np.array([[0, 5, 0, 0, 0], [-1, 0, 0, 0, 0]], np.int32)
    table = np.array(spans, np.int64).reshape(-1, 4)
    with pytest.raises(ValueError, match=message):
        engine._core.run(np.array([1, 2], np.int32), table, tables, 0, len(engine.program.ops),
                         np.empty((1, 97), np.float32))  # fmt: skip
    with pytest.raises(ValueError, match="a table is too short"):
        engine._core.run(np.array([1, 2], np.int32), np.array([(0, 70, 2, 1)], np.int64), tables[:, :1].copy(), 0,
                         len(engine.program.ops), np.empty((1, 97), np.float32))  # fmt: skip
    for pair in ((0, 5), (-1, 0), (0, 0)):
        with pytest.raises(ValueError, match="no such page"):
            engine._core.copy_page(*pair)
