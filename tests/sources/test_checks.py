"""What reading a tensor looks at decides whether threads read it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scrimp.errors import Refused
from scrimp.formats import ELEMENTS, NAMED, encode, parse
from scrimp.sources.checks import check_codes, check_finite, reads_codes


@pytest.mark.parametrize("name", [*ELEMENTS, *NAMED])
def test_only_formats_whose_codes_are_read_refuse_one(name: str) -> None:
    """Planes with every code there is, and every byte."""
    rng = np.random.default_rng(0)
    tensor = encode(rng.normal(size=(512, 1024)).astype(np.float32), name)
    planes = tuple(rng.integers(0, 256, plane.shape, np.uint8) for plane in tensor.planes)
    damaged = replace(tensor, planes=planes)
    with pytest.raises(Refused) if reads_codes(parse(name)) else nullcontext():
        check_finite(Path("net"), "w", damaged)
        check_codes(Path("net"), "w", damaged)
