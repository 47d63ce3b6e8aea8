"""One thread: many tests run at once, and the results must not depend on how many cores there are. No cache."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import torch

    monkeypatch.setenv("SCRIMP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRIMP_THREADS", "1")
    torch.set_num_threads(1)
