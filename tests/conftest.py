"""What many tests share: the instruction sets of this machine, and where the real model lies."""

from __future__ import annotations

import pytest

ALL_ISAS = ("scalar", "avx2", "avx512")


@pytest.fixture(params=ALL_ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set, one test each; those this machine lacks are skipped by name."""
    from scrimp import _core

    name: str = request.param
    if name not in _core.available_isas():
        pytest.skip(f"this machine cannot run {name}")
    return name
