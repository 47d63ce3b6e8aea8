"""Plans hold their limits, give reasons, and say what would make a network fit."""

import dataclasses

import numpy as np
import pytest
from chip_nets import made
from random_programs import product

from scrimp.errors import GoalNotMet, Refused, UsageError
from scrimp.export.firmware.plan import plan
from scrimp.export.firmware.targets import TARGETS, target_named
from scrimp.integer.program import IntegerProgram, MaxPool
from scrimp.models.cnn import Image, Pixels

RV32EC = TARGETS["rv32ec"]


def test_a_tight_flash_takes_the_packing_of_fewest_bits_and_a_wide_one_the_fastest():
    program = made("mlp")
    tight, wide = plan(program, RV32EC, 16 << 10, 2 << 10), plan(program, RV32EC)
    assert set(tight.packings.values()) == {"T5"}
    assert set(wide.packings.values()) == {"T19"}
    assert tight.flash <= 16 << 10
    assert tight.ram <= 2 << 10
    assert tight.flash < wide.flash
    assert tight.instructions > wide.instructions
    assert "bytes beside T19" in tight.layers[0].reason
    assert "fastest" in wide.layers[0].reason


@pytest.mark.parametrize("flash", [15 << 10, 17_000, 17_500, 18_000, 30_000, 80_000])
def test_more_flash_never_makes_it_slower(flash):
    program = made("mlp")
    try:
        tight = plan(program, RV32EC, flash)
    except GoalNotMet:
        assert flash < 16 << 10
        return
    assert tight.flash <= flash
    assert plan(program, RV32EC, 2 * flash).instructions <= tight.instructions


def test_a_network_too_large_for_the_ram_runs_a_channel_at_a_time():
    program = made("depthwise")
    whole, chained = plan(program, RV32EC), plan(program, RV32EC, 16 << 10, 2 << 10)
    assert not whole.chained
    assert chained.chained
    assert chained.ram <= 2 << 10 < whole.ram


@pytest.mark.parametrize(
    ("flash", "ram", "words"),
    [
        (8 << 10, None, r"needs 1[56],\d{3} bytes of flash; there are 8,192.*fc0 has 32,768 weights: fewer outputs"),
        (None, 500, r"bytes of RAM; there are 500.*fc0 reads and writes most"),
        (16, 16, "bytes of RAM; there are 16"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would_help(flash, ram, words):
    with pytest.raises(GoalNotMet, match=words) as failed:
        plan(made("mlp"), RV32EC, flash, ram)
    assert failed.value.exit_code == 4
    assert "\n" not in str(failed.value)


def test_wide_weights_are_told_that_narrow_ones_are_smaller():
    rng = np.random.default_rng(0)
    wide = product(rng, "wide", 0, 1, Image(1, 1, 900), 40, (1, 1), 1, 0, 1, True, "int8")
    program = IntegerProgram((Image(1, 1, 900), Image(1, 1, 40)), Pixels(0, 1, 1.0), (wide,))
    with pytest.raises(GoalNotMet, match="ternary"):
        plan(program, RV32EC, 16 << 10)


def test_forced_packings_are_taken_or_refused():
    program = made("mlp")
    assert plan(program, RV32EC, forced={"fc1": "T2"}).packings["fc1"] == "T2"
    with pytest.raises(UsageError, match="B1 does not hold the weights of fc1"):
        plan(program, RV32EC, forced={"fc1": "B1"})
    with pytest.raises(UsageError, match="'fc9' is no layer"):
        plan(program, RV32EC, forced={"fc9": "T2"})


def test_programs_that_can_t_be_expressed_are_refused():
    program = made("mlp")
    pool = MaxPool("m", 0, 1, 1, 1)
    with pytest.raises(Refused, match="last operation"):
        plan(dataclasses.replace(program, ops=(pool,)), RV32EC)
    with pytest.raises(Refused, match="reads what is not there yet"):
        plan(dataclasses.replace(program, ops=program.ops[1:]), RV32EC)
    with pytest.raises(Refused, match="same name"):
        plan(dataclasses.replace(program, ops=(program.ops[0], *program.ops)), RV32EC)
    long = product(
        np.random.default_rng(0), "long", 0, 1, Image(1, 70_000, 1), 2, (1, 70_000), 1, 0, 1, True, "ternary"
    )
    with pytest.raises(Refused, match="70,000 channels, points in a line or steps"):
        plan(IntegerProgram((Image(1, 70_000, 1), Image(1, 1, 2)), Pixels(0, 1, 1.0), (long,)), RV32EC)


def test_targets_have_short_names_and_unknown_ones_a_hint():
    assert target_named("m3") is TARGETS["cortex-m3"]
    with pytest.raises(UsageError, match=r"'cortex-m9' is no target.*Did you mean"):
        target_named("cortex-m9")


def test_only_the_chains_that_are_needed_are_made():
    """Two chains; the first buffer alone is too large, so the second stays as it is."""
    rng = np.random.default_rng(1)
    images = [Image(12, 12, 1), Image(12, 12, 16), Image(6, 6, 16), Image(6, 6, 8), Image(3, 3, 8), Image(1, 1, 4)]
    first = product(rng, "first", 0, 1, images[0], 16, (3, 3), 1, 1, 1, element="int4")
    second = product(rng, "second", 2, 3, images[2], 8, (3, 3), 1, 1, 1, element="ternary")
    last = product(rng, "last", 4, 5, images[4], 4, (3, 3), 1, 0, 1, True, "ternary")
    ops = (first, MaxPool("m", 1, 2, 2, 2), second, MaxPool("n", 3, 4, 2, 2), last)
    program = IntegerProgram(tuple(images), Pixels(0, 1, 1.0), ops)
    made = plan(program, RV32EC, ram=2 << 10)
    assert [len(stage.ops) for stage in made.stages] == [2, 1, 1, 1]
    assert [len(stage.ops) for stage in plan(program, RV32EC, chains=True).stages] == [2, 2, 1]
