"""The roofline: words stay inside the picture and off each other, whatever the ceilings are."""

import itertools
import re

import pytest

from scrimp.measure import svg
from scrimp.measure.bench_page import roofline
from scrimp.measure.speed import Ceilings
from scrimp.measure.traffic import OpCost

#: (operation, multiply-adds per byte, G multiply-adds a second) of SmolLM2 on two threads of a quiet machine
DECODE = [("linear embed_tokens", 0.94, 30.0), ("linear gate_proj up_proj", 1.6, 55.0),
          ("linear down_proj", 1.6, 50.0), ("linear q_proj k_proj v_proj", 1.6, 45.0), ("linear o_proj", 1.6, 40.0),
          ("attention", 1.5, 12.0)]  # fmt: skip
PREFILL = [("linear gate_proj up_proj", 410.0, 240.0), ("linear down_proj", 410.0, 260.0), ("attention", 400.0, 60.0),
           ("linear o_proj", 400.0, 210.0), ("linear q_proj k_proj v_proj", 410.0, 200.0)]  # fmt: skip


def profile():
    return [
        OpCost(phase, op, 1, 0.01, int(rate * 1e7 / at), int(rate * 1e7))
        for phase, rows in (("decode", DECODE), ("prefill", PREFILL))
        for op, at, rate in rows
    ]


def boxes(picture):
    """Of upright words in small letters: left, top, right, bottom, the words."""
    for x, y, anchor, words in re.findall(
        r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)" class="small">([^<]+)', picture
    ):
        wide = 5.5 * len(words)
        left = float(x) - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        yield left, float(y) - 8, left + wide, float(y), words


@pytest.mark.parametrize("ceilings", [
    Ceilings(40.0, 190.0, 470.0, 120.0, 240.0), Ceilings(25.0, 110.0, 236.0, 90.0), Ceilings(8.0, 30.0, None, None),
    Ceilings(200.0, 2000.0, 9000.0, 4000.0), Ceilings(40.0, 190.0, 470.0, 460.0),
], ids=str)  # fmt: skip
def test_words_stay_apart_and_inside(ceilings):
    picture = roofline(profile(), ceilings)
    found = list(boxes(picture))
    for left, _, right, _, words in found:
        assert left >= svg.LEFT, words
        assert right <= svg.WIDTH, words
    for a, b in itertools.combinations(found, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        roofs = "peak" in a[4] and "peak" in b[4]  # two roofs of one height are words over words
        assert apart or roofs, (a, b)
    assert f"memory {ceilings.memory_read_gb_per_s:,.0f} GB/s" in picture
    assert ("bfloat16 peak" in picture) == (ceilings.bf16_gmac_per_s is not None)
    assert ceilings.int8_gmac_per_s is None or f"int8 peak {ceilings.int8_gmac_per_s:,.0f} G/s" in picture


def test_numbers_at_the_end_of_an_axis_are_not_cut_off():
    picture = svg.axes(svg.horizontal(0.1, 1000, log=True), svg.vertical(1, 1000, log=True), "x", "y")
    for at, words in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)', picture):
        assert float(at) + 4 * len(words) <= svg.WIDTH
