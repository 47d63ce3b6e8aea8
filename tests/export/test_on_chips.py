"""Exported C on chips that QEMU plays: every logit, and how many instructions, how much flash and RAM it took.

``chips.toml`` remembers; what changes by more than 1 % fails until it is explained and accepted.
"""

import os
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from chip_nets import NETS, made
from random_programs import pictures_for

from scrimp.export.firmware import export_firmware, simulate
from scrimp.export.firmware.cost import FUNCTIONS
from scrimp.export.firmware.flash import CALL, RUN
from scrimp.export.firmware.targets import TARGETS
from scrimp.export.firmware.vectors import COMPARING
from scrimp.integer.reference import run

CHIPS = [name for name, target in TARGETS.items() if target.chip]
RECORD = Path(__file__).with_name("chips.toml")
ACCEPT = "SCRIMP_ACCEPT_CHIPS"
ALL = "SCRIMP_ALL_CHIPS"
#: What `make test` runs.
LIGHT = {("rv32ec", "mlp"), ("cortex-m3", "residual"), ("rv32ec", "ternary_convolutions")}
MEASURED = ("instructions", "flash_bytes", "ram_bytes")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    return simulate.plugin_built(tmp_path_factory.mktemp("plugin"))


def exported(name, net, out, plugin):
    """What was planned, what ran, and what it took."""
    target = TARGETS[name]
    if not os.environ.get(ALL) and not os.environ.get(ACCEPT) and (name, net) not in LIGHT:
        pytest.skip(f"{net} on {name} is run by make firmware-test")
    if lacking := simulate.missing(target):
        pytest.skip(f"{name} needs: apt-get install {' '.join(lacking)}")
    program = made(net)
    _, flash, ram, count = NETS[net]
    report = export_firmware(program, out, target=name, flash=flash, ram=ram)
    simulate.build(out, ["WARNINGS=-Wall -Wextra -pedantic -Werror"])
    pictures = pictures_for(program, count)
    ran = simulate.stream(out, target, pictures, program.classes, plugin)
    np.testing.assert_array_equal(ran.logits, run(program, pictures))
    size = simulate.size(out, target)
    took = {
        "instructions": sum(ran.counts.values()) // count,
        "flash_bytes": size.flash,
        "ram_bytes": (ram or target.ram_most) - ran.unused_ram,
    }
    return report, ran, took


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("chip", CHIPS)
def test_every_logit_and_what_it_took(chip, net, tmp_path, plugin):
    report, _, took = exported(chip, net, tmp_path / "out", plugin)
    assert took["ram_bytes"] <= report.ram_bytes
    assert took["flash_bytes"] <= (report.flash_limit or report.flash_bytes + 2048)
    compare(chip, net, took)


def compare(chip, net, took):
    compiler = version(TARGETS[chip].compiler)
    known = tomllib.loads(RECORD.read_text()) if RECORD.exists() else {}
    before = known.get(chip, {}).get(net)
    if os.environ.get(ACCEPT):
        known.setdefault(chip, {})[net] = {"compiler": compiler, **took}
        RECORD.write_text(written(known))
        return
    assert before is not None, f"{chip} never ran {net}: {ACCEPT}=1 make firmware-test writes it down"
    if before["compiler"] != compiler:
        pytest.skip(f"recorded with {before['compiler']}, here is {compiler}: the logits are right")
    for what in MEASURED:
        change = took[what] / before[what] - 1
        assert abs(change) <= 0.01, (
            f"{what} of {net} on {chip} went from {before[what]:,} to {took[what]:,} ({100 * change:+.1f} %). "
            f"If that is meant, say why in docs/notes/011-firmware.md and accept it: {ACCEPT}=1 make firmware-test"
        )


def written(known):
    lines = ["# Written by tests/export/test_on_chips.py: instructions per picture, bytes of the test program."]
    for chip in sorted(known):
        for net in sorted(known[chip]):
            lines += ["", f"[{chip}.{net}]", f'compiler = "{known[chip][net]["compiler"]}"']
            lines += [f"{what} = {known[chip][net][what]}" for what in MEASURED]
    return "\n".join(lines) + "\n"


def version(compiler):
    return f"{compiler} {subprocess.run([compiler, '-dumpversion'], capture_output=True, text=True).stdout.strip()}"


@pytest.mark.parametrize(("chip", "most"), [("cortex-m3", 2.4), ("rv32ec", 3.3)])
def test_a_ternary_weight_takes_few_instructions(chip, most, tmp_path, plugin):
    """64 channels: kernel and tables, as counted."""
    report, ran, _ = exported(chip, "ternary_convolutions", tmp_path / "out", plugin)
    assert report.layers[0].packing == "T19"
    own = sum(ran.counts[name] for name in FUNCTIONS["T19"] if name in ran.counts)
    pictures = NETS["ternary_convolutions"][3]
    assert own / (pictures * 64 * 64 * 576) <= most


@pytest.mark.parametrize("chip", CHIPS)
def test_predictions_are_near(chip, tmp_path, plugin):
    """Of instructions within 5 %; flash never less than it takes, and more by no more than what is not measured."""
    report, ran, took = exported(chip, "residual", tmp_path / "out", plugin)
    pictures = NETS["residual"][3]
    assert sum(ran.counts.values()) / pictures == pytest.approx(report.instructions, rel=0.05)
    vectors = 4 * 7 * report.vectors
    assert took["flash_bytes"] - vectors - COMPARING <= report.flash_bytes
    not_measured = RUN + CALL * len(report.layers) + COMPARING
    assert report.flash_bytes <= took["flash_bytes"] - vectors + not_measured
    assert simulate.size(tmp_path / "out", TARGETS[chip]).ram == report.arena_bytes


def test_a_changed_count_is_noticed(tmp_path, monkeypatch):
    monkeypatch.delenv(ACCEPT, raising=False)
    monkeypatch.setattr("test_on_chips.RECORD", tmp_path / "chips.toml")
    monkeypatch.setattr("test_on_chips.version", lambda compiler: "gcc 1")
    took = dict.fromkeys(MEASURED, 1000)
    (tmp_path / "chips.toml").write_text(written({"rv32ec": {"mlp": {"compiler": "gcc 1", **took}}}))
    compare("rv32ec", "mlp", {**took, "instructions": 1009})
    with pytest.raises(AssertionError, match=r"from 1,000 to 1,011 \(\+1.1 %\)"):
        compare("rv32ec", "mlp", {**took, "instructions": 1011})
    with pytest.raises(AssertionError, match="never ran"):
        compare("rv32ec", "residual", took)
