"""The network that is committed, as ``scrimp train`` wrote it: the logits it had then."""

import json
import tomllib

import drawn_digits
import numpy as np
import pytest

import scrimp
from scrimp import _core
from scrimp.integer.lower import lower
from scrimp.integer.reference import run
from scrimp.store.net import open_net

RECIPE = drawn_digits.EXAMPLE.parents[1] / "recipes" / f"{drawn_digits.EXAMPLE.name}.toml"


@pytest.fixture(scope="module")
def recorded():
    return np.loadtxt(drawn_digits.RECORDED, dtype=np.int64, delimiter=",")


def test_the_reference_gives_the_recorded_logits(recorded):
    np.testing.assert_array_equal(run(lower(*open_net(drawn_digits.EXAMPLE)), drawn_digits.drawn()), recorded)
    assert (recorded.argmax(axis=1) == np.arange(10)).sum() >= 8, "it reads what a pen draws"


@pytest.mark.parametrize("isa", _core.available_isas())
def test_so_does_the_engine(isa, recorded):
    with scrimp.open(drawn_digits.EXAMPLE, isa=isa) as network:
        np.testing.assert_array_equal(network.logits(drawn_digits.drawn()), recorded)


def test_it_came_from_its_recipe():
    said = json.loads((drawn_digits.EXAMPLE / "scrimp.json").read_text())
    assert said["source"]["recipe"] == tomllib.loads(RECIPE.read_text())
