"""The ground of all methods: values are the stored tensor's, to the bit, and scales are the best of those tried."""

from __future__ import annotations

import numpy as np
import pytest
from layers import FORMATS, weights

from scrimp.errors import UsageError
from scrimp.formats import parse
from scrimp.formats.catalogue import ELEMENTS, NAMED
from scrimp.quantize import rtn
from scrimp.quantize.grid import levels_for, levels_of, refuse
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32, QTensor, encode

EVERY = (*NAMED, *(f"{name}:g32" for name, e in ELEMENTS.items() if e.kind != "float"))
TAKEN = []
for spelled in EVERY:
    try:
        refuse(parse(spelled), "gptq")
        TAKEN.append(spelled)
    except UsageError:
        pass


def rounded(weight: F32, name: str) -> tuple[QTensor, F32]:
    """Scales of the first group's weights for all of a row; the tensor, and the values the grid says it has."""
    format = parse(name)
    levels = levels_for(weight, format, "a method")
    w = np.ascontiguousarray(weight.T)
    group, groups = format.group(w.shape[0]), format.groups(w.shape[0])
    whole = format.block == "tensor"
    blocks = [w[g * group : (g + 1) * group] for g in range(groups)]
    found = [choose(b, levels, np.ones(len(b), np.float32), whole=whole) for b in blocks]
    scales = np.stack([scale for scale, _ in found])
    mins = np.stack([low for _, low in found]) if format.has_min else None  # type: ignore[misc]
    value, low = levels.value(scales), levels.low(mins)
    per = [(value[g], None if low is None else low[g]) for g in range(groups)]
    codes = np.concatenate([levels.codes(b, *pair) for b, pair in zip(blocks, per, strict=True)])
    values = [levels.values(codes[g * group : (g + 1) * group], *pair) for g, pair in enumerate(per)]
    return levels.tensor(codes, scales, mins), np.concatenate(values).T


@pytest.mark.parametrize("name", [*FORMATS, *TAKEN])
def test_values_are_those_of_the_stored_tensor_bit_for_bit(name: str) -> None:
    weight = weights(19, 72)
    tensor, values = rounded(weight, name)
    assert (tensor.dequantize().view(np.uint32) == np.ascontiguousarray(values).view(np.uint32)).all()
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_tensor_gives_its_scales_back(name: str) -> None:
    tensor, _ = rounded(weights(19, 72), name)
    levels = levels_of(tensor, "a method")
    assert tensor.scales is not None
    scales = tensor.row_scales().T
    back = levels.grid.nearest(scales.astype(np.float64))
    assert (levels.value(back) == scales).all()


@pytest.mark.parametrize("name", FORMATS)
def test_scales_err_no_more_than_those_of_the_format_itself(name: str) -> None:
    weight, format = weights(64, 128), parse(name)
    tensor, _ = rounded(weight, name)
    plain = encode(weight, format)

    def error(q: QTensor) -> float:
        return float(np.square(q.dequantize().astype(np.float64) - weight).sum())

    assert error(tensor) <= error(plain) * 1.01


@pytest.mark.parametrize("name", ["int2:g32", "int3:g64", "int4:g64", "int8:g64", "int2z:g32", "int4z:g64", "ternary"])
def test_scales_of_equal_weights_are_nearly_as_good_as_the_search_of_rtn(name: str) -> None:
    weight = weights(64, 128)
    tensor, _ = rounded(weight, name)
    best = rtn.quantize(weight, parse(name))
    errors = [float(np.square(q.dequantize() - weight).sum(dtype=np.float64)) for q in (tensor, best)]
    assert errors[0] <= errors[1] * 1.05


def test_a_weight_that_counts_for_nothing_decides_nothing() -> None:
    w = weights(64, 8)
    levels = levels_for(w.T, parse("int4:g64"), "a method")
    importance = np.ones(64, np.float32)
    importance[7] = 0
    without = choose(np.delete(w, 7, axis=0), levels, np.ones(63, np.float32))[0]
    w[7] = 0.01
    assert (choose(w, levels, importance)[0] == without).all()


@pytest.mark.parametrize("name", ["f16", "bf16", "fp8_e4m3", "posit16_1", "smx6", "e8m0:g32", "q4_k"])
def test_formats_without_codes_to_choose_are_refused_with_an_alternative(name: str) -> None:
    with pytest.raises(UsageError, match=r"gptq has nothing to work on.*use rtn"):
        levels_for(weights(4, 64), parse(name), "gptq")


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zeros(name: str) -> None:
    _, values = rounded(np.zeros((5, 72), np.float32), name)
    assert np.abs(values).max() < 1e-30
