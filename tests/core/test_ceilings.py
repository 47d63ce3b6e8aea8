"""Ceilings: positive, of every instruction set, and refused where they make no sense."""

import pytest

from scrimp import _core


def test_reading_is_measured_for_every_thread_and_repeat(isa):
    found = _core.read_bandwidth(1 << 20, 2, 3, isa=isa)
    assert len(found) == 3
    assert min(found) > 0  # a busy machine may take one of the threads away for long
    assert len(_core.read_bandwidth(1 << 16, 1, 4, least=1 << 20, isa=isa)) == 4


def test_arrays_are_read_and_not_skipped(isa):
    """More than the second cache holds is not read faster than the first cache gives."""
    arrays = [_core.weight_bytes(1 << 20) for _ in range(24)]
    for array in arrays:
        array[:] = 1
    found = max(_core.read_arrays(arrays, 1, isa) for _ in range(5))
    assert 0 < found < max(_core.read_bandwidth(1 << 14, 1, 5, least=1 << 24, isa=isa))
    assert _core.read_arrays([arrays[0][: 512 * 3 + 100], arrays[1][:0]], 2, isa) > 0
    with pytest.raises(ValueError, match="64-byte"):
        _core.read_arrays([arrays[0][1:]], 1, isa)


def test_caches_are_faster_than_memory(isa):
    near = max(_core.read_bandwidth(1 << 14, 1, 5, least=1 << 24, isa=isa))
    assert near > max(_core.read_bandwidth(1 << 27, 1, 2, isa=isa))


def test_peaks_are_positive_and_wider_registers_are_faster(isa):
    for numbers in ("int8", "f32"):
        found = _core.peak(numbers, 1, 5, isa)
        assert len(found) == 5
        assert min(found) > 0
        if isa != "scalar":
            assert max(found) > max(_core.peak(numbers, 1, 5, "scalar"))
    assert len(_core.peak("bf16", 1, 5, isa)) == 5 * (isa == "avx512_bf16")


@pytest.mark.parametrize("wrong", [{"bytes": 100, "threads": 1}, {"bytes": 1 << 20, "threads": 0},
                                   {"bytes": 1 << 20, "threads": 1, "repeats": 0}])  # fmt: skip
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="out of range"):
        _core.read_bandwidth(**wrong)
    with pytest.raises(ValueError, match="out of range"):
        _core.peak("int4", 1, 1, "scalar")
