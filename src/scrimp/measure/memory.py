"""What the operating system says about this process: peak memory and page faults."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PageFaults:
    """Minor: a page was mapped. Major: it had to be read from disk first."""

    minor: int
    major: int

    def __add__(self, other: PageFaults) -> PageFaults:
        return PageFaults(self.minor + other.minor, self.major + other.major)

    def __sub__(self, other: PageFaults) -> PageFaults:
        return PageFaults(self.minor - other.minor, self.major - other.major)


def page_faults() -> PageFaults:
    """Of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return PageFaults(usage.ru_minflt, usage.ru_majflt)


def peak_bytes() -> int:
    """Peak resident memory of this process, memory-mapped weights included.

    On Linux from ``VmHWM``: ``ru_maxrss`` also counts what the parent held at the moment it started this process.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
