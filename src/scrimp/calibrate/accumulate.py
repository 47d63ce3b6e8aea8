"""The inputs of linear layers, window by window → their Statistics."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused
from scrimp.tensors import F32

#: Tokens whose products are summed in float32, before the sum joins the float64 one.
TOKENS_AT_ONCE = 2048


class Accumulator:
    """Adds up ``XᵀX``, ``x``, ``|x|`` and ``max|x|`` of rows ``x (K,)`` as they come.

    Error
        Relative to ``Σ|x_i x_j|``: ``TOKENS_AT_ONCE · 2^-24`` from the float32 sums; the float64 ones add nothing.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._moments = np.zeros((width, width), np.float64)
        self._sum, self._magnitude = np.zeros(width, np.float64), np.zeros(width, np.float64)
        self._peak = np.zeros(width, np.float32)
        self._waiting: list[F32] = []

    def add(self, x: F32) -> None:
        """Rows ``(T, K)``; the array is kept for a while, so it must not change."""
        self._waiting.append(x)
        if sum(len(rows) for rows in self._waiting) >= TOKENS_AT_ONCE:
            self._settle()

    def statistics(self, name: str) -> Statistics:
        """Of all rows so far. Refused, with the ``name`` of the matrix, when some are not finite."""
        self._settle()
        if not np.isfinite(self._moments).all():
            raise Refused(
                f"{name}: its inputs are not finite when the calibration text runs through the network.",
                hint="the source may be damaged: scrimp eval it",
            )
        mean, magnitude = ((total / self.count).astype(np.float32) for total in (self._sum, self._magnitude))
        return Statistics(self.count, self._moments, mean, magnitude, self._peak)

    def _settle(self) -> None:
        if not self._waiting:
            return
        x = np.concatenate(self._waiting)
        self._waiting.clear()
        self.count += len(x)
        with np.errstate(all="ignore"):  # what is not finite is told by statistics()
            self._moments += x.T @ x
            self._sum += x.sum(axis=0, dtype=np.float64)
            np.abs(x, out=x)
            self._magnitude += x.sum(axis=0, dtype=np.float64)
            np.maximum(self._peak, x.max(axis=0), out=self._peak)
