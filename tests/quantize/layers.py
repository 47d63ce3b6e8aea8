"""Layers to quantize: weights, and statistics of inputs that are correlated and unequally strong."""

from __future__ import annotations

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.quantize.objective import row_errors
from scrimp.tensors import F32, QTensor

#: Formats of every kind that methods can round to.
FORMATS = (
    *(f"int{bits}:g32" for bits in (1, 2, 3, 4, 5, 6, 8)), *(f"int{bits}z:g32" for bits in (1, 2, 3, 4, 8)),
    "int4:g64@bf16", "int3:row", "int3z:row", "int4:tensor", "int4z:tensor@f32", "int4r:g32", "quaternary:g32",
    "ternary", "ternary:g64@bf16", "ternary2:tensor", "binary", "binary:g32", "nf4", "af4", "iq4nl:g32", "lns8",
    "fp4_e2m1:g32", "fp6_e2m3:row", "fp8_e4m3:g64", "fp8_e4m3_ieee:row", "posit8_1:g64", "fixed8.6:row", "sm4.2:g32",
    "mxfp4", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8", "nvfp4", "nvfp4_46", "msfp12", "vsq4", "vsq6", "q4_0",
    "q4_1", "flex16", "int4:g32@e4m3", "int4:g32@e8m0", "int16:g32",
)  # fmt: skip

#: Formats whose levels every tensor learns.
LEARNED = ("kmeans2:row@f32", "kmeans3:g64", "kmeans4:g32@e4m3", "kmeans3:tensor", "kmeans2:g32@e8m0")


def weights(rows: int, cols: int, seed: int = 0) -> F32:
    return (np.random.default_rng(seed).standard_t(6, (rows, cols)) / 16).astype(np.float32)


def statistics(cols: int, seed: int = 0, tokens: int | None = None) -> Statistics:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((cols, cols)) / np.sqrt(cols) + np.diag(np.exp(rng.standard_normal(cols)))
    x = (rng.standard_normal((tokens or 8 * cols, cols)) @ mixing).astype(np.float32)
    return of_inputs(x)


def of_inputs(x: F32) -> Statistics:
    wide = x.astype(np.float64)
    return Statistics(len(x), wide.T @ wide, x.mean(axis=0), np.abs(x).mean(axis=0), np.abs(x).max(axis=0))


def of_moments(moments: np.ndarray) -> Statistics:
    side = np.sqrt(np.maximum(moments.diagonal(), 0)).astype(np.float32)
    return Statistics(1, np.asarray(moments, np.float64), side, side, side)


def output_error(q: QTensor, weight: F32, moments: np.ndarray) -> float:
    return float(row_errors(weight - q.dequantize().astype(np.float64), moments).sum())


def assert_same(a: QTensor, b: QTensor) -> None:
    assert a.parts().keys() == b.parts().keys()
    assert all((a.parts()[part] == b.parts()[part]).all() for part in a.parts())
