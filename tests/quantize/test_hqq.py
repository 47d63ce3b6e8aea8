"""HQQ: smaller p-norms than its starts, as small as the original's, and every edge."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from layers import assert_same, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.quantize import hqq, rtn
from scrimp.quantize.grid import levels_for
from scrimp.quantize.methods import method
from scrimp.tensors import F32, QTensor

FORMATS = (
    *(f"int{bits}{z}:g64" for bits in range(1, 9) for z in ("", "z")),
    *("int4:row", "int4z:row", "int4:tensor", "int3z:tensor", "ternary", "ternary:g64", "quaternary:g32", "int4r:g64"),
    *("uint4:g64", "int4:g32@bf16", "vsq4", "int4:g64@e4m3", "int4:g32@e8m0"),
)


def objective(q: QTensor, weight: F32) -> np.ndarray:
    """``Σ |w - ŵ|^p`` of every block."""
    off = np.abs(q.dequantize().astype(np.float64) - weight) ** hqq.P
    if q.format.block == "tensor":
        return off.sum(keepdims=True)
    return np.add.reduceat(off, np.arange(0, weight.shape[1], q.format.group(weight.shape[1])), axis=1)


@pytest.mark.parametrize("name", FORMATS)
def test_no_block_is_worse_than_at_either_start(name: str) -> None:
    weight, format = weights(20, 136), parse(name)
    found = hqq.quantize(weight, format).tensor
    levels = levels_for(weight, format, "hqq")
    whole, group = format.block == "tensor", format.group(136)
    for g, begin in enumerate(range(0, 136, group)):
        block = np.ascontiguousarray(weight.T[begin : begin + group])
        for start in (
            hqq._plain(block.reshape(-1, 1) if whole else block, levels),
            hqq.choose(block, levels, np.ones(len(block), np.float32), whole=whole),
        ):
            scale, low = levels.value(start[0]), levels.low(start[1])
            off = block - levels.values(levels.codes(block, scale, low), scale, low)
            at_start = (np.abs(off.astype(np.float64)) ** hqq.P).sum(axis=None if whole else 0)
            assert (objective(found, weight)[:, g] <= at_start * (1 + 1e-5)).all()


@pytest.mark.parametrize("name", ["int2z:g64", "int3z:g64", "int4z:g64", "int3:g64", "int4:g64", "int2:g64"])
def test_its_norm_is_smaller_than_after_rounding_to_nearest(name: str) -> None:
    weight = weights(64, 256)
    for scale in ("mse", "absmax"):
        plain = rtn.quantize(weight, parse(name), scale=scale)  # type: ignore[arg-type]
        ratio = objective(hqq.quantize(weight, parse(name)).tensor, weight).sum() / objective(plain, weight).sum()
        assert ratio < 1.0, (scale, ratio)


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zeros_and_equal_weights_equal(name: str) -> None:
    assert np.abs(hqq.quantize(np.zeros((3, 72), np.float32), parse(name)).tensor.dequantize()).max() < 1e-30
    assert np.isfinite(hqq.quantize(np.full((3, 72), 0.3, np.float32), parse(name)).tensor.dequantize()).all()


@pytest.mark.parametrize("name", ["int4:g64@f32", "int3z:g64@f32", "ternary@f32"])
def test_the_unit_of_the_weights_does_not_matter(name: str) -> None:
    weight = weights(16, 128)
    found, scaled = (hqq.quantize(w, parse(name)).tensor for w in (weight, weight * 1024))
    assert (found.codes() == scaled.codes()).all()


def test_rows_do_not_depend_on_each_other() -> None:
    weight = weights(33, 200)
    found = hqq.quantize(weight, parse("int4z:g64")).tensor
    alone = hqq.quantize(weight[7:9], parse("int4z:g64")).tensor
    assert (found.codes()[7:9] == alone.codes()).all()
    assert_same(found, method("hqq")(weight, parse("int4z:g64")))


@pytest.mark.parametrize("name", ["nf4", "binary", "mxfp4", "f16"])
def test_levels_that_are_not_evenly_spaced_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="evenly spaced"):
        hqq.quantize(weights(4, 64), parse(name))


ORACLE = """
import sys, numpy as np, torch
from hqq.core.quantize import Quantizer
weight = np.load(sys.argv[1])
for bits in (2, 3, 4, 8):
    packed, meta = Quantizer.quantize(torch.from_numpy(weight), nbits=bits, group_size=64, axis=1, optimize=True,
                                      round_zero=False, device="cpu", compute_dtype=torch.float32)
    back = Quantizer.dequantize(packed, meta).float().numpy()
    print(bits, float((np.abs(back.astype(np.float64) - weight) ** 0.7).sum()))
"""


def test_it_is_as_good_as_the_original(tmp_path: Path) -> None:
    """SCRIMP_HQQ_PYTHON: a Python with the packages hqq and torch, in an environment of its own."""
    python = os.environ.get("SCRIMP_HQQ_PYTHON")
    if python is None:
        pytest.skip("hqq: set SCRIMP_HQQ_PYTHON to a Python that has it")
    weight = weights(64, 512)
    np.save(tmp_path / "weight.npy", weight)
    command = [python, "-c", ORACLE, str(tmp_path / "weight.npy")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    for line in told.strip().splitlines()[-4:]:
        bits, theirs = line.split()
        ours = objective(hqq.quantize(weight, parse(f"int{bits}z:g64@f32")).tensor, weight).sum()
        print(bits, ours / float(theirs))
        assert ours <= float(theirs) * 1.01
