"""Misses of the data TLB of this process, where the kernel counts them: Linux's perf_event_open, by its number.

Source: perf_event_open(2); the numbers are those of linux/perf_event.h, the first 64 bytes of perf_event_attr.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

#: (type, config): PERF_TYPE_HW_CACHE, loads of the data TLB that missed; PERF_TYPE_SOFTWARE, page faults.
DATA_TLB_MISSES = (3, 3 | 0 << 8 | 1 << 16)
SOFTWARE_PAGE_FAULTS = (1, 2)

_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_TOTAL_TIMES = 1 | 2  # enabled, running: counters that share a register run in turns


@dataclass(frozen=True)
class Reading:
    """A counter so far, and for how many nanoseconds it was wanted and really ran."""

    value: int
    enabled: int
    running: int


class Counter:
    """One event of the thread that opens it, and of all threads it starts from then on. ``why_not``: where there is
    none, the reason; reading gives None then."""

    def __init__(self, event: tuple[int, int]) -> None:
        self.why_not, self._fd = "", -1
        number = _CALL.get(platform.machine())
        if not sys.platform.startswith("linux") or number is None:
            self.why_not = "only Linux counts them, on x86-64 and ARM"
            return
        kind, config = event
        flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
        attributes = struct.pack("=IIQQQQQIIQ", kind, 64, config, 0, 0, _TOTAL_TIMES, flags, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(number, attributes, 0, -1, -1, 0)
        if self._fd < 0:
            self.why_not = _reason(ctypes.get_errno())

    def read(self) -> Reading | None:
        if self._fd < 0:
            return None
        data = os.read(self._fd, 24)
        return Reading(*struct.unpack("=QQQ", data)) if len(data) == 24 else None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def between(before: Reading | None, after: Reading | None) -> int | None:
    """What was counted between, scaled up to the whole time; None where nothing counted.

    >>> between(Reading(100, 0, 0), Reading(300, 4000, 1000))
    800
    """
    if before is None or after is None or after.running <= before.running:
        return None
    share = (after.running - before.running) / (after.enabled - before.enabled)
    return round((after.value - before.value) / share)


def add_known(counts: Sequence[int | None]) -> int | None:
    """Their sum, or None where one of them is not known."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _reason(code: int) -> str:
    if code in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return "this machine shows no such counter"
    if code in (errno.EACCES, errno.EPERM):
        try:
            return f"not permitted: perf_event_paranoid is {_PARANOID.read_text().strip()}"
        except OSError:
            return "not permitted"
    return os.strerror(code)
