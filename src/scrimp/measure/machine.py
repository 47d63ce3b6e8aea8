"""What this machine offers and what stands in the way: the facts behind ``scrimp doctor``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from scrimp import __version__
from scrimp.errors import ScrimpError

T = TypeVar("T")

#: What scrimp stands on, as their packages are called.
PACKAGES = ("numpy", "tokenizers", "safetensors", "gguf", "jinja2")
#: Enough to leave every cache, little enough to be quick.
PROBE_BYTES = 128 * 10**6


@dataclass(frozen=True)
class Problem:
    """Something that makes scrimp slower or stops it, and what to do."""

    problem: str
    hint: str


@dataclass(frozen=True)
class Machine:
    """Facts, each None or empty where this system does not tell."""

    processor: str
    features: tuple[str, ...]
    isas: tuple[str, ...]  #: instruction sets that can run here, the best last
    isa: str | None  #: the one that is chosen
    physical_cores: int | None
    logical_cores: int
    cpu_quota: float | None  #: processors a container may use
    threads: int | None
    memory_bytes: int | None
    memory_available_bytes: int | None
    huge_pages: str | None
    memory_read_gb_per_s: float | None
    versions: dict[str, str]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(root: Path = Path("/")) -> Machine:
    """Look at everything once. ``root`` is where ``proc`` and ``sys`` lie; nothing needs to be there."""
    problems: list[Problem] = []
    try:
        from scrimp import _core
        from scrimp.engine import machine as engine_machine
    except ImportError as error:
        problems.append(
            Problem(f"the compiled core cannot be loaded: {error}", "reinstall: pip install --force-reinstall scrimp")
        )
        isas, features, isa, cores, threads, speed = [], [], None, None, None, None
    else:
        isas, features = _core.available_isas(), _core.cpu_features()
        cores = engine_machine.physical_cores()
        isa = _ask(engine_machine.pick_isa, problems)
        threads = _ask(engine_machine.default_threads, problems)
        speed = float(median(_core.read_bandwidth(PROBE_BYTES, min(threads or cores, cores), 3)))
    memory = _meminfo(root)
    machine = Machine(
        processor=processor(root),
        features=tuple(features),
        isas=tuple(isas),
        isa=isa,
        physical_cores=cores,
        logical_cores=os.cpu_count() or 1,
        cpu_quota=_cpu_quota(root),
        threads=threads,
        memory_bytes=_least(memory.get("MemTotal"), _number(root / "sys/fs/cgroup/memory.max")),
        memory_available_bytes=memory.get("MemAvailable"),
        huge_pages=_chosen(_read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        memory_read_gb_per_s=speed,
        versions={"scrimp": __version__, "python": platform.python_version(), **{p: _version(p) for p in PACKAGES}},
        problems=(),
    )
    return Machine(**{**vars(machine), "problems": (*problems, *known_problems(machine, dict(os.environ)))})


def known_problems(machine: Machine, environment: dict[str, str]) -> list[Problem]:
    """What is known to make scrimp slow, of what is true here."""
    found = []
    if machine.isas and set(machine.isas) == {"scalar"}:
        found.append(
            Problem(
                "this processor has no instruction set that scrimp has fast code for", "it works, but ten times slower"
            )
        )
    if machine.isa and machine.isa != machine.isas[-1]:
        found.append(
            Problem(f"SCRIMP_ISA chooses {machine.isa}; {machine.isas[-1]} is the fastest here", "unset SCRIMP_ISA")
        )
    usable = min(machine.physical_cores or machine.logical_cores, machine.cpu_quota or float("inf"))
    if machine.threads and machine.threads > usable:
        found.append(
            Problem(
                f"{machine.threads} threads share {usable:g} cores", f"SCRIMP_THREADS={max(1, int(usable))} is faster"
            )
        )
    if machine.huge_pages == "never":
        found.append(
            Problem("huge pages are off", "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)")
        )
    available = machine.memory_available_bytes
    if available is not None and available < 10**9:
        found.append(
            Problem(f"only {available / 1e9:.1f} GB of memory are free", "close programs; small models still fit")
        )
    for name in sorted(environment):
        if name in ("SCRIMP_ISA", "SCRIMP_THREADS"):
            found.append(
                Problem(
                    f"{name}={environment[name]} is set: defaults are overridden", f"unset {name} to measure fairly"
                )
            )
    return found


def _ask(question: Callable[[], T], problems: list[Problem]) -> T | None:
    try:
        return question()
    except ScrimpError as error:
        problems.append(Problem(error.message, error.hint or ""))
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)


def processor(root: Path = Path("/")) -> str:
    """Its name, as the system tells it."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "Hardware") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


def _meminfo(root: Path) -> dict[str, int]:
    """``/proc/meminfo`` in bytes."""
    found = {}
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[0] if rest.split() else ""
        if number.isdigit():
            found[name] = int(number) * 1024
    return found


def _cpu_quota(root: Path) -> float | None:
    """Processors that ``cpu.max`` of the control group allows."""
    quota, _, period = _read(root / "sys/fs/cgroup/cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _chosen(text: str) -> str | None:
    """The bracketed word of ``always [madvise] never``."""
    _, _, rest = text.partition("[")
    return rest.partition("]")[0] or None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
