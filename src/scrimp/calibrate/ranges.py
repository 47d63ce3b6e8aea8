"""What linear layers read, as histograms of |x|, and the one int8 scale that each input gets from its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.calibrate.split import split
from scrimp.calibrate.walk import Walk
from scrimp.engine.float_path import as_run
from scrimp.errors import Refused
from scrimp.program import Program
from scrimp.tensors import F32, QTensor

#: Largest code either way.
LIMIT = 127
#: |x| up to which the numbers reach that "percentile" takes.
SHARE = 0.9999
#: Bits of a float32 that a bin ignores: 7 bits of the significand are left, so a bin is at most 2^-7 of its value wide.
_DROP = 16
_BINS = 2 ** (31 - _DROP)
_EDGES = (np.arange(_BINS, dtype=np.uint32) << _DROP).view(np.float32)
_INFINITE = int(np.float32(np.inf).view(np.uint32)) >> _DROP


class Histogram:
    """Counts |x| of rows ``x (K,)`` as they come, in bins that grow with their value; and the exact largest."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.peak = np.float32(0)

    def add(self, x: F32) -> None:
        """Numbers of any shape."""
        bits = np.ascontiguousarray(x, np.float32).reshape(-1).view(np.uint32) & np.uint32(0x7FFF_FFFF)
        self.counts += np.bincount(bits >> np.uint32(_DROP), minlength=_BINS)
        self.peak = max(self.peak, bits.max(initial=0).view(np.float32))

    @property
    def finite(self) -> bool:
        return not self.counts[_INFINITE:].any()


def absmax(seen: Histogram) -> float:
    """``max|x| / 127``: nothing saturates."""
    return float(seen.peak) / LIMIT


def percentile(seen: Histogram) -> float:
    """The largest of all but one in ten thousand numbers is code 127, to the width of a bin; the rest saturates."""
    within = np.cumsum(seen.counts)
    bin = int(np.searchsorted(within, SHARE * within[-1]))
    return min(float(seen.peak), float(_EDGES[bin + 1])) / LIMIT


def mse(seen: Histogram) -> float:
    """The scale s with the least squared error over all numbers, of those whose code 127 is a bin's edge.

    ``Σ x² (|x| < s/2) + s²/12 (between) + (|x| - 127 s)² (|x| > 127 s)``: zeros, rounding, saturation. Each number
    counts as the middle of its bin, the exact rounding errors as their mean square.
    """
    middle = (_EDGES[:_INFINITE].astype(np.float64) + np.append(_EDGES[1:_INFINITE], _EDGES[_INFINITE - 1])) / 2
    counts = seen.counts[:_INFINITE].astype(np.float64)
    number, total, squares = (np.append(0, np.cumsum(counts * middle**power)) for power in (0, 1, 2))
    top = int(np.searchsorted(_EDGES[:_INFINITE], seen.peak)) + 1
    clip = np.append(_EDGES[max(1, top - 12 * 128) : top].astype(np.float64), float(seen.peak))
    clip = clip[(clip > 0) & (clip <= float(seen.peak))]
    scale = clip / LIMIT
    low, high = (np.searchsorted(middle, bound) for bound in (scale / 2, clip))
    beyond = squares[-1] - squares[high] - 2 * clip * (total[-1] - total[high]) + clip**2 * (number[-1] - number[high])
    error = squares[low] + scale**2 / 12 * (number[high] - number[low]) + beyond
    return float(scale[int(np.argmin(error))])


RULES: dict[str, Callable[[Histogram], float]] = {"absmax": absmax, "percentile": percentile, "mse": mse}


def scales_of(seen: Mapping[str, Histogram], rule: str) -> dict[str, float]:
    """Matrix → the scale of its input, a float32; 1/127 where only zeros came by. Refused where none fits."""
    found = {}
    for name, histogram in seen.items():
        scale = np.float32(RULES[rule](histogram)) if histogram.peak > 0 else np.float32(1 / LIMIT)
        if not np.finfo(np.float32).tiny <= scale <= np.finfo(np.float32).max / LIMIT:
            raise Refused(f"{name}: its inputs reach {histogram.peak:g}, which no scale of int8 fits.",
                          hint="the source may be damaged: scrimp eval it")  # fmt: skip
        found[name] = float(scale)
    return found


def measure(
    program: Program,
    read: Callable[[str], QTensor],
    vectors: Mapping[str, F32],
    windows: NDArray[np.int32],
    *,
    directory: Path | None = None,
    tick: Callable[[str], None] = lambda name: None,
) -> dict[str, Histogram]:
    """Matrix → histogram of what it multiplies with over all windows, in float32; one block is in memory at a time.

    ``tick`` hears the name of a block's first matrix before it runs. Refused where a number is not finite.
    """
    walk = Walk(windows, directory=directory)
    found: dict[str, Histogram] = {}
    for block in split(program):
        tick(block.runs[0] if block.runs else block.matrices[0])
        seen = {buffer: Histogram() for buffer in block.reads.values()}
        weights = {name: as_run(read(name)) for name in block.runs}

        def watch(buffer: int, x: F32, seen: dict[int, Histogram] = seen) -> None:
            seen[buffer].add(x)

        walk.run(block, weights, vectors, collect=False, move=True, watch=watch)
        for name, buffer in block.reads.items():
            if not seen[buffer].finite:
                raise Refused(f"{name}: its inputs are not finite when the calibration text runs through the network.",
                              hint="the source may be damaged: scrimp eval it")  # fmt: skip
            found[name] = seen[buffer]
    return found
