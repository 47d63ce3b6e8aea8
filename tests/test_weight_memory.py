"""Weights lie in huge pages, scales included: small pages are read at two thirds of the speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scrimp import _core
from scrimp.formats import parse
from scrimp.sources.shapes import random_tensor
from scrimp.tensors import encode

pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir() or not Path("/proc/self/smaps").is_file(),
    reason="this system has no huge pages to ask for",
)


def wished_for() -> list[range]:
    """Addresses for which huge pages are wished for: mappings with the flag ``hg``, neighbours as one."""
    found: list[range] = []
    here = range(0)
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        head, *flags = line.split()
        if "-" in head and not head.endswith(":"):
            here = range(*(int(side, 16) for side in head.split("-")))
        elif head == "VmFlags:" and "hg" in flags:
            follows = found and found[-1].stop == here.start
            found.append(range(found.pop().start, here.stop) if follows else here)
    return found


def lies_in(array: np.ndarray, stretches: list[range]) -> bool:
    begin = array.ctypes.data
    return any(begin in stretch and begin + array.nbytes - 1 in stretch for stretch in stretches)


@pytest.mark.parametrize("name", ["int4:g64", "uint4:g32", "int3:g64", "ternary:row", "nf4:g64", "q4_k", "f16", "f32"])
def test_all_parts_of_an_encoded_weight_are_in_huge_pages(name):
    tensor = encode(np.random.default_rng(0).normal(size=(1024, 2048)).astype(np.float32), name)
    stretches = wished_for()
    for part, array in tensor.parts().items():
        assert lies_in(array, stretches), part
        assert array.ctypes.data % 64 == 0


def test_so_are_random_ones():
    tensor = random_tensor(parse("int4:g64"), (1024, 2048), np.random.default_rng(0))
    stretches = wished_for()
    for part, array in tensor.parts().items():
        assert lies_in(array, stretches), part


@pytest.mark.parametrize("size", [1, 100, 3 << 20, 16 << 20, (17 << 20) + 5])
def test_memory_of_weights_is_aligned_and_wished_to_be_huge_to_its_end(size):
    array = _core.weight_bytes(size)
    array[:] = 7
    assert array.shape == (size,)
    assert array.ctypes.data % 64 == 0
    assert lies_in(array, wished_for())


def test_weights_made_one_after_another_do_not_overlap():
    arrays = [_core.weight_bytes(size) for size in (5, 64, 1 << 20, 9 << 20, 9 << 20, 7, 20 << 20)]
    for i, array in enumerate(arrays):
        array[:] = i
    assert all((array == i).all() for i, array in enumerate(arrays))
