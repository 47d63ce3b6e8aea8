"""Where a benchmark ran: the facts that stand beside its numbers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from scrimp import _core
from scrimp.measure.machine import processor


def here() -> dict[str, Any]:
    """Processor, instruction sets, load and commit."""
    return {"processor": processor(), "isas": _core.available_isas(), "load": os.getloadavg()[0], "commit": commit()}


def commit() -> str:
    """Of the sources, "" where they lie in no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
