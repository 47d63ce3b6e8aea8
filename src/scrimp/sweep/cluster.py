"""Cells spread over the processes of a Ray cluster: a local one of so many, or one that runs already.

Every cell is a task that needs nothing of the others. Texts travel with it; the model is opened by its name or path, so
each machine must have it. Same cells, same numbers: a cell does not know where it runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from scrimp.engine import default_threads
from scrimp.errors import ScrimpError, UsageError
from scrimp.sweep.cell import Cell, Result, Setting, work

#: Seconds that a cluster has to answer.
_ANSWER_S = 10.0
#: A cluster that begins and ends with the sweep.
_LOCAL = {"address": "local", "include_dashboard": False}
_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: More local processes would only wait for each other.
MAX_WORKERS = 1024


def results(
    cells: Mapping[str, Cell], setting: Setting, workers: str, threads: int | None = None
) -> Iterator[tuple[str, Result]]:
    """Key and Result of every cell, as they come.

    ``threads`` of a cell: unless given, the cores of this machine divided among local workers, and one elsewhere.
    """
    local = check(workers)
    ray = _ray()
    each = threads or (1 if local is None else max(1, default_threads() // local))
    place: dict[str, Any] = {"address": workers} if local is None else {"num_cpus": local * each, **_LOCAL}
    try:
        ray.init(**place, log_to_driver=False, logging_level="error", runtime_env={"env_vars": _environment(each)})
    except Exception as error:
        raise ScrimpError(f"Ray did not start: {' '.join(str(error).split())[:200]}.",
                          hint="--workers takes a number, or the address of a cluster that runs") from None  # fmt: skip
    try:
        task = ray.remote(num_cpus=each, max_retries=0)(work)
        waiting = {task.remote(cell, setting): key for key, cell in cells.items()}
        while waiting:
            ready, _ = ray.wait(list(waiting))
            for found in ready:
                key = waiting.pop(found)
                yield key, _fetch(ray, found, cells[key])
    finally:
        ray.shutdown()


def check(workers: str) -> int | None:
    """How many local workers, or None for an address where somebody answers: Ray would try for minutes."""
    local = int(workers[:9]) if workers.isascii() and workers.isdigit() else None
    if local is None:
        _check_address(workers)
    elif not 1 <= local <= MAX_WORKERS:
        raise UsageError(f"{local:,} workers are out of range.", hint=f"1 … {MAX_WORKERS:,} are possible")
    _ray()
    return local


def _check_address(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise UsageError(
            f"'{address}' is neither a number of workers nor an address.", hint="--workers 2, or HOST:PORT"
        )
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ScrimpError(f"No Ray cluster answers at {address} ({error}).",
                          hint="start one with `ray start --head`, or give a number of workers") from None  # fmt: skip


def _fetch(ray: Any, found: Any, cell: Cell) -> Result:
    try:
        result: Result = ray.get(found)
        return result
    except ray.exceptions.RayError as error:  # its process died, or cannot start
        reason = f"the worker was lost ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return Result(cell.name, cell.wish.method, cell.prefix, 0.0, error=reason)


def _environment(threads: int) -> dict[str, str]:
    """Of the workers: their threads, and what else makes scrimp do what it does here.

    The BLAS below NumPy sums in another order with another number of threads, so they take as many as it would here;
    Ray would give them one. Our own threads change no bit.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("SCRIMP_")}
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    blas = {name: os.environ.get(name, os.environ.get("OMP_NUM_THREADS", str(here))) for name in _BLAS}
    return {**own, **blas, "SCRIMP_THREADS": str(threads)}


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
    try:
        import ray
    except ImportError:
        raise ScrimpError("Spreading a sweep needs Ray.", hint="pip install 'scrimp[sweep]', or leave --workers out") \
            from None  # fmt: skip
    return ray
