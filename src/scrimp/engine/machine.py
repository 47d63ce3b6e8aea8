"""What this machine offers: threads worth using, and the instruction set to use."""

from __future__ import annotations

import os
from pathlib import Path

from scrimp import _core
from scrimp.errors import UsageError, nearest


def physical_cores() -> int:
    """Cores that this process may run on, hyper-threads of one core counted once; the logical count where unknown."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            cores.add((str(cpu), ""))
    return len(cores)


def default_threads() -> int:
    """One thread per physical core, or ``SCRIMP_THREADS``."""
    text = os.environ.get("SCRIMP_THREADS")
    if text is None:
        return physical_cores()
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= 1024):
        raise UsageError(
            f"SCRIMP_THREADS is '{text[:40]}'; it must be a number in 1 … 1024.", hint="unset it, or SCRIMP_THREADS=2"
        )
    return int(text)


def pick_isa(wanted: str | None = None) -> str:
    """The best instruction set, or the one that ``wanted`` or ``SCRIMP_ISA`` names; a missing one is an error."""
    available: list[str] = _core.available_isas()
    name = wanted or os.environ.get("SCRIMP_ISA")
    if not name:
        return available[-1]
    if name not in available:
        hint = nearest(name, available) or f"this machine has {', '.join(available)}"
        raise UsageError(f"The instruction set '{name}' is not available here.", hint=hint)
    return name
