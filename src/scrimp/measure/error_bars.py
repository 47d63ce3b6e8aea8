"""Means with the error they carry."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def mean_error(values: F64) -> float:
    """Standard error of the mean of ``values``, taken as independent: ``std / √n``. NaN for fewer than two.

    >>> mean_error(np.array([1.0, 3.0]))
    1.0
    """
    return float(np.std(values, ddof=1) / np.sqrt(values.size)) if values.size > 1 else float("nan")


def windowed_error(values: F64) -> float:
    """Standard error of the mean of per-token ``values (windows, tokens)``, from the means of the windows.

    Tokens of one window share a subject and a context, so they are correlated, and ``std / √tokens`` would promise too
    much. Window means are nearly independent (neighbouring windows of one book less than fully so: the true error may
    still be somewhat larger). NaN for a single window, which says nothing about its own spread.
    """
    return mean_error(values.mean(axis=1, dtype=np.float64))
