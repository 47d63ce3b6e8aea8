"""The inputs of linear layers, window by window → their Statistics."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused
from scrimp.tensors import F32

#: Tokens whose products are summed in float32, before the sum joins the float64 one.
TOKENS_AT_ONCE = 1024
#: Rows of the moments that are made at a time: the product needs room beside the sum.
ROWS_AT_ONCE = 512
#: Inputs that are kept as they are: so many, or up to twice as many.
SAMPLE_ROWS = 256


class Accumulator:
    """Adds up ``XᵀX``, ``x``, ``|x|`` and ``max|x|`` of rows ``x (K,)`` as they come, and keeps some of them.

    Error
        Relative to ``Σ|x_i x_j|``: ``TOKENS_AT_ONCE · 2^-24`` from the float32 sums; the float64 ones add nothing.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._moments = np.zeros((width, width), np.float64)  # the upper triangle, in blocks of rows
        self._sum, self._magnitude = np.zeros(width, np.float64), np.zeros(width, np.float64)
        self._peak = np.zeros(width, np.float32)
        self._waiting = np.empty((TOKENS_AT_ONCE, width), np.float32)
        self._filled = 0
        self._sample, self._stride = np.empty((0, width), np.float32), 1  # every so manieth row of all

    def add(self, x: F32) -> None:
        """Rows ``(T, K)``."""
        first = -(self.count + self._filled) % self._stride
        self._sample = np.concatenate([self._sample, x[first :: self._stride]])
        while len(self._sample) >= 2 * SAMPLE_ROWS:
            self._sample, self._stride = self._sample[::2].copy(), 2 * self._stride
        for at in range(0, len(x), TOKENS_AT_ONCE):
            piece = x[at : at + TOKENS_AT_ONCE]
            if self._filled + len(piece) > TOKENS_AT_ONCE:
                self._settle()
            self._waiting[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)

    def statistics(self, name: str) -> Statistics:
        """Of all rows, which were at least one. Refused, with the ``name`` of the matrix, when some are not finite."""
        self._settle()
        for begin in range(0, len(self._moments), ROWS_AT_ONCE):
            end = begin + ROWS_AT_ONCE
            self._moments[end:, begin:end] = self._moments[begin:end, end:].T
        with np.errstate(all="ignore"):
            total = self._moments.sum()
        if not np.isfinite(total):
            raise Refused(
                f"{name}: its inputs are not finite when the calibration text runs through the network.",
                hint="the source may be damaged: scrimp eval it",
            )
        mean, magnitude = ((added / self.count).astype(np.float32) for added in (self._sum, self._magnitude))
        return Statistics(self.count, self._moments, mean, magnitude, self._peak, self._sample)

    def _settle(self) -> None:
        x = self._waiting[: self._filled]
        self.count += self._filled
        self._filled = 0
        with np.errstate(all="ignore"):  # what is not finite is told by statistics()
            for begin in range(0, x.shape[1], ROWS_AT_ONCE):
                end = begin + ROWS_AT_ONCE
                square = x[:, begin:end]
                self._moments[begin:end, begin:end] += square.T @ square  # of one array: exactly symmetric
                self._moments[begin:end, end:] += square.T @ x[:, end:]
            self._sum += x.sum(axis=0, dtype=np.float64)
            np.abs(x, out=x)
            self._magnitude += x.sum(axis=0, dtype=np.float64)
            np.maximum(self._peak, x.max(axis=0, initial=0.0), out=self._peak)
