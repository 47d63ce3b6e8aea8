"""Rounding of scales to their stored types, against every float16 and against ml_dtypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrimp.formats.scale_types import LARGEST, at_least, at_most, to_nearest
from scrimp.tensors import to_f32

#: Every finite float16, ascending.
_EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)
ALL_F16 = np.unique(_EVERY[np.isfinite(_EVERY)]).astype(np.float64)


@given(st.floats(-70000, 70000))
def test_f16_neighbours_are_found_by_exhaustion(value: float) -> None:
    inside = np.clip(value, -65504, 65504)
    assert at_most(np.array([value]), "f16")[0] == ALL_F16[inside >= ALL_F16].max()
    if value >= 0:
        assert at_least(np.array([value]), "f16")[0] == ALL_F16[inside <= ALL_F16].min()


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
@given(value=st.floats(-1e39, 1e39))
def test_stored_values_are_finite_and_on_the_right_side(kind: str, value: float) -> None:
    exact = np.array([value])
    for stored in (to_nearest(exact, kind), at_most(exact, kind), at_least(np.abs(exact), kind)):
        assert np.isfinite(to_f32(stored, kind)).all()
    if abs(value) <= LARGEST[kind]:
        assert to_f32(at_most(exact, kind), kind)[0] <= value
        assert to_f32(at_least(np.abs(exact), kind), kind)[0] >= abs(value)


@pytest.mark.parametrize("kind", ["f16", "bf16", "f32"])
def test_a_positive_scale_never_underflows_to_zero(kind: str) -> None:
    assert to_f32(at_least(np.array([1e-60, 0.0]), kind), kind).tolist() == [
        {"f16": 2.0**-24, "bf16": 2.0**-133, "f32": 2.0**-149}[kind], 0.0,
    ]  # fmt: skip


def test_the_largest_bfloat16_is_the_one_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert float(ml_dtypes.finfo(ml_dtypes.bfloat16).max) == LARGEST["bf16"]
