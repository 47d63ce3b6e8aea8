"""Counting events of this process: with one that every Linux counts, since few machines show their TLB."""

import mmap
import platform
import sys
import threading
from dataclasses import replace

import pytest

from scrimp.cli.bench import lines
from scrimp.measure import perf_events
from scrimp.measure.perf_events import DATA_TLB_MISSES, SOFTWARE_PAGE_FAULTS, Counter, Reading, add_known, between
from scrimp.measure.speed import measure_speed


@pytest.fixture
def counter():
    opened = Counter(SOFTWARE_PAGE_FAULTS)
    if opened.why_not:
        pytest.skip(f"page faults are not counted here: {opened.why_not}")
    yield opened
    opened.close()


def touch(pages):
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def test_threads_started_later_are_counted(counter):
    for run in (lambda: touch(300), lambda: in_a_thread(lambda: touch(300))):
        before = counter.read()
        run()
        assert 300 <= between(before, counter.read()) < 3000


def in_a_thread(run):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def test_a_closed_counter_reads_nothing(counter):
    counter.close()
    assert counter.read() is None
    assert between(None, None) is None


def test_a_counter_that_shared_its_register_is_scaled():
    assert between(Reading(7, 1000, 1000), Reading(27, 3000, 1500)) == 80
    assert between(Reading(7, 1000, 1000), Reading(7, 3000, 1000)) is None, "it had no turn"
    assert add_known([3, 4]) == 7
    assert add_known([3, None]) is None


@pytest.mark.parametrize("event", [DATA_TLB_MISSES, SOFTWARE_PAGE_FAULTS])
def test_it_counts_or_says_why_not(event):
    counter = Counter(event)
    assert (counter.read() is None) == bool(counter.why_not)
    counter.close()


def test_refusals_have_words(monkeypatch):
    nonsense = Counter((3, 0xFFFFFF))
    assert nonsense.why_not
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    assert "only Linux" in Counter(DATA_TLB_MISSES).why_not
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "only Linux" in Counter(DATA_TLB_MISSES).why_not
    assert "not permitted" in perf_events._reason(13)


def test_bench_shows_them_or_says_why_not(monkeypatch):
    monkeypatch.setattr("scrimp.measure.speed.DATA_TLB_MISSES", (3, 0xFFFFFF))
    speed = measure_speed(shape="tiny:int4", prefill=4, decode=2, repeat=2, threads=1)
    assert speed.tlb_misses is None
    assert speed.to_json()["tlb_not_counted"] == speed.tlb_not_counted != ""
    row = next(line for line in lines(speed) if line[0] == "TLB misses in decode")
    assert row[1:] == ("not counted", speed.tlb_not_counted)
    counted = replace(speed, tlb_misses=4000, tlb_not_counted="")
    assert ("TLB misses in decode", "4,000", "1,000 a token") in lines(counted)
