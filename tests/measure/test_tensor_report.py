"""Entropy, spread and histogram of stored tensors, against NumPy on the decoded whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scrimp.formats import parse
from scrimp.measure import tensor_report
from scrimp.quantize import rtn
from scrimp.tensors import from_codes

FORMATS = ["int4:g64", "int3z:row", "int8:tensor", "ternary", "binary", "f16", "bf16"]


@pytest.fixture(params=[(5, 37), (1000, 600)], ids=["small", "in parts"])
def weight(request):
    return np.random.default_rng(1).standard_normal(request.param).astype(np.float32)


def plain_entropy(codes):
    counts = np.unique(codes, return_counts=True)[1]
    return -sum(n / codes.size * math.log2(n / codes.size) for n in counts)


@pytest.mark.parametrize("name", [n for n in FORMATS if ":" in n or n in ("ternary", "binary")])
def test_entropy_is_that_of_the_codes(weight, name):
    q = rtn.quantize(weight, parse(name), scale="absmax")
    assert tensor_report.code_entropy(q) == pytest.approx(plain_entropy(q.codes()), rel=1e-12)


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_the_codes_of_a_half_float_are_its_bits(weight, name):
    q = rtn.quantize(weight, parse(name))
    distinct = plain_entropy(q.dequantize())  # no NaN, no -0: equal bits are equal values
    assert tensor_report.code_entropy(q) == pytest.approx(distinct, rel=1e-12)


def test_entropy_has_its_known_values():
    codes = np.tile(np.arange(16, dtype=np.uint8), (16, 4))
    scales = np.ones((16, 1), np.float16)
    assert tensor_report.code_entropy(from_codes(parse("int4:g64"), codes, scales)) == 4.0
    assert tensor_report.code_entropy(from_codes(parse("int4:g64"), codes * 0, scales)) == 0.0
    assert tensor_report.code_entropy(rtn.quantize(np.ones((2, 2), np.float32), parse("f32"))) is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_histogram_counts_every_value_once(weight, name):
    q = rtn.quantize(weight, parse(name))
    values = q.dequantize()
    low, high = float(values.min()), float(values.max())
    counts = tensor_report.histogram(q, low, high)
    assert sum(counts) == values.size
    bins = np.minimum((values.astype(np.float64) - low) * (tensor_report.BINS / (high - low)), tensor_report.BINS - 1)
    assert counts == np.bincount(bins.astype(int).ravel(), minlength=tensor_report.BINS).tolist()


def test_a_constant_tensor_has_one_bar():
    counts = tensor_report.histogram(np.full(7, 3.0, np.float32), 3.0, 3.0)
    assert counts[0] == sum(counts) == 7
