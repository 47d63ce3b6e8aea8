"""What many tests share: the instruction sets of this machine, the real model, and the data beside the project."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

ARM = platform.machine() in ("aarch64", "arm64")
ALL_ISAS = (
    ("scalar", "neon", "neon_dotprod", "neon_i8mm") if ARM else ("scalar", "avx2", "avx2_vnni", "avx512", "avx512_bf16")
)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(params=ALL_ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Every instruction set, one test each; those this machine lacks are skipped by name."""
    from scrimp import _core

    name: str = request.param
    if name not in _core.available_isas():
        pytest.skip(f"this machine cannot run {name}")
    return name


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The GGUF of SmolLM2-135M where `scrimp pull smollm2-135m` puts it, or SCRIMP_TEST_SMOLLM2."""
    from scrimp.sources.catalogue import cache_directory

    named = os.environ.get("SCRIMP_TEST_SMOLLM2")
    path = Path(named) if named else cache_directory() / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip("SmolLM2 is not here: scrimp pull smollm2-135m")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Files of ../shared/data by name; the test is skipped by that name where they are absent."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"../shared/data/{name} is not here")
        return SHARED / name

    return find
