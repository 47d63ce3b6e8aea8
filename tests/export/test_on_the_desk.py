"""Exported C on this desk, under sanitizers: every logit is the reference's."""

import shutil

import numpy as np
import pytest
from random_programs import a_chain_program, a_program, pictures_for, random_packings

from scrimp.export.firmware.packing import PACKINGS
from scrimp.export.firmware.schedule import by_channel, one_by_one
from scrimp.integer.program import Add, AvgPool, MaxPool, Product
from scrimp.integer.reference import run

if shutil.which("cc") is None:
    pytest.skip("needs a C compiler: apt-get install gcc", allow_module_level=True)

SEEDS = range(40)


@pytest.fixture(scope="module")
def cases():
    """One by one, and where it makes a difference a channel at a time too."""
    found = []
    programs = [*map(a_program, SEEDS), *map(a_chain_program, range(8))]
    for seed, program in enumerate(programs):
        packings = random_packings(program, seed)
        found.append((program, one_by_one(program), packings))
        if any(stage.chained for stage in by_channel(program)):
            found.append((program, by_channel(program), packings))
    return found


def test_every_operation_packing_and_schedule_is_among_them(cases):
    """Otherwise the test below would prove less than it says."""
    ops = [op for program, _, _ in cases for op in program.ops]
    assert {type(op) for op in ops} == {Product, MaxPool, AvgPool, Add}
    assert {name for _, _, packings in cases for name in packings.values()} == set(PACKINGS)
    assert sum(any(stage.chained for stage in stages) for _, stages, _ in cases) >= 8
    products = [op for op in ops if isinstance(op, Product)]
    assert {op.padding for op in products} >= {0, 1, 2}
    assert {op.stride for op in products} >= {1, 2, 3}
    assert any(op.groups > 1 and len(op.weight) > op.groups for op in products)
    assert any(op.groups > 1 and len(op.weight) == op.groups for op in products)


def test_every_logit_is_the_reference_s(cases, tmp_path):
    from desk import run_all

    pictures = [pictures_for(program, 6, i) for i, (program, _, _) in enumerate(cases)]
    for (program, _, packings), seen, logits in zip(cases, pictures, run_all(tmp_path, cases, pictures), strict=True):
        np.testing.assert_array_equal(logits, run(program, seen), err_msg=str(packings))
