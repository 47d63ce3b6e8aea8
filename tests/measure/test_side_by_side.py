"""Turns of one model become one measurement."""

import subprocess
import sys
from dataclasses import replace

import pytest

from scrimp.errors import UsageError
from scrimp.measure.energy import TokenEnergy
from scrimp.measure.memory import PageFaults, page_faults
from scrimp.measure.side_by_side import merge, take_turn
from scrimp.measure.speed import Ceilings, Rate, Speed


def turn(rate, **changes):
    one = Rate(rate, rate, rate, 1)
    speed = Speed(
        model="m", prefill=8, decode=4, prefill_tokens_per_s=one, decode_tokens_per_s=one, bytes_per_token=1000,
        prefill_macs=800, ceilings=Ceilings(10.0, 50.0, 7.0, None),
        load_ms=1.0, first_token_ms=2.0, rss_peak_bytes=100, page_faults=PageFaults(1, 0),
        threads=1, isa="scalar", energy=TokenEnergy("45nm", "DRAM", 0.5, 1.5, False),
    )  # fmt: skip
    return replace(speed, **changes)


def test_rates_are_medians_and_peaks_are_the_largest():
    merged = merge(
        [turn(30.0, load_ms=9.0), turn(10.0, rss_peak_bytes=300), turn(20.0, ceilings=Ceilings(12.0, 40.0, 8.0, None))]
    )
    assert merged.decode_tokens_per_s == Rate(median=20.0, min=10.0, max=30.0, n=3)
    assert (merged.rss_peak_bytes, merged.memory_read_gb_per_s, merged.load_ms) == (300, 12.0, 1.0)
    assert merged.ceilings == Ceilings(12.0, 50.0, 8.0, None)
    assert merged.prefill_gmac_per_s == 20.0 * 100 / 1e9
    assert merged.page_faults == PageFaults(3, 0)
    assert merged.decode_gb_per_s == 20.0 * 1000 / 1e9


def test_an_error_of_a_turn_is_raised_with_its_hint():
    with pytest.raises(UsageError, match="--prefill is 0") as caught:
        take_turn({"name": "m", "prefill": 0})
    assert caught.value.hint == "--prefill 1"


def test_peak_memory_sees_an_allocation():
    code = (
        "from scrimp.measure.memory import peak_bytes; before = peak_bytes(); block = bytearray(64_000_000); "
        "block[::4096] = bytes(len(block[::4096])); del block; print(peak_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 60_000_000 < int(done.stdout) < 80_000_000


def test_page_faults_count_up():
    before = page_faults()
    block = bytearray(b"\1" * 40_000_000)
    assert (page_faults() - before).minor > 0
    del block
