"""A stand-in for the methods that calibrate: it rounds, and remembers the Statistics it was given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from networks import WORDS, write_network

from scrimp.calibrate.statistics import Statistics
from scrimp.formats import Format
from scrimp.quantize import rtn
from scrimp.quantize.methods import METHODS
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, QTensor


class StandIn:
    """Weighs the inputs a little by their magnitude, so that other statistics give other codes."""

    calibrated = True
    rewrite = None
    source = "tests"
    beside = None
    coded_bits = None
    fisher = False

    def __init__(self) -> None:
        self.seen: list[Statistics | None] = []

    def run(self, weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
        self.seen.append(statistics)
        if statistics is None:
            return Quantized(rtn.quantize(weight, format))
        share = np.diag(statistics.moments) / np.trace(statistics.moments)
        notes = ("ragged",) if weight.shape[1] == 96 else ()
        return Quantized(rtn.quantize((weight * (1 + share)).astype(np.float32), format), notes)

    def __call__(self, weight: F32, format: Format, statistics: Statistics | None = None) -> QTensor:
        return self.run(weight, format, statistics).tensor


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    found = StandIn()
    monkeypatch.setitem(METHODS, "stand-in", found)  # type: ignore[arg-type]
    return found


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return write_network(tmp_path / "network")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.txt"
    path.write_text(" ".join(np.random.default_rng(5).choice(WORDS, 400)))
    return path
