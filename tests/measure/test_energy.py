"""Modelled energy of a whole model: each matrix in its own format, and the bytes as they are stored."""

import pytest

from scrimp.formats import cost, parse
from scrimp.measure.energy import activation, token
from scrimp.program import Program


def network():
    p = Program({"embed": (32, 16), "up": (64, 16), "head": (32, 16)}, {})
    p.linear(p.embed("embed"), "up")
    p.linear(p.embed("embed"), "head")
    return p


FORMATS = {"embed": parse("int8:row"), "up": parse("q4_k"), "head": parse("f16")}
STORED = {"embed": 640, "up": 576, "head": 1024}


def test_every_matrix_counts_in_its_format_and_every_byte_once():
    found = token(network(), FORMATS, STORED, 0, "45nm")
    up = cost.energy(64 * 16, "q4_k", "int8:row", 0).pj_compute
    assert found.compute_mj == pytest.approx((up + 32 * 16 * cost.of("f16").energy_pj_mac) / 1e9)
    assert found.memory_mj == pytest.approx(8 * (2 * 640 / 32 + 576 + 1024) * 1300 / 64 / 1e9)
    assert found.total_mj == found.compute_mj + found.memory_mj
    assert found.interpolated
    assert found.to_json()["node"] == "45nm"


def test_fewer_bytes_take_less():
    half = {name: size // 2 for name, size in STORED.items()}
    assert token(network(), FORMATS, half, 0, "7nm").total_mj < token(network(), FORMATS, STORED, 0, "7nm").total_mj


@pytest.mark.parametrize(
    ("name", "beside"),
    [("int4:g32", "int8:row"), ("ternary", "int8:row"), ("nf4", "int8:row"), ("bf16", "bf16"), ("mxfp4", "mxfp4")],
)
def test_integers_are_multiplied_as_the_engine_does(name, beside):
    assert activation(parse(name)).name == beside
