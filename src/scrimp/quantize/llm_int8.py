"""LLM.int8(): the few input channels with outliers stay in 16 bits and meet float activations; the rest is rounded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scrimp.calibrate.statistics import Statistics
from scrimp.errors import UsageError
from scrimp.formats import Format, parse
from scrimp.formats.scale_types import from_f32
from scrimp.quantize.decoded import stands_for
from scrimp.quantize.quantized import Quantize, Quantized, SideCar
from scrimp.tensors import F32, QTensor, from_floats

#: An input beyond this in absolute value is an outlier (the paper's section 3.2).
THRESHOLD = 6.0
#: One channel in so many is kept: sizes must be known before the inputs are.
ONE_IN = 64
_F16 = parse("f16")


def needs(shape: tuple[int, int]) -> dict[str, SideCar]:
    """``ceil(K / 64)`` columns in f16, and their numbers."""
    count = -(-shape[1] // ONE_IN)
    return {"outliers": SideCar((shape[0], count), _F16), "channels": SideCar((count,))}


def quantize(first: Quantize, weight: F32, format: Format, statistics: Statistics | None) -> Quantized:
    """The strongest channels by their peak as f16 columns; ``first`` rounds the rest as if these inputs were zero.

    The paper keeps every channel beyond the threshold; here there are ``ceil(K / 64)`` places, unused ones take the
    next strongest, and a note says when there were too few. When the rest is multiplied its inputs are zero in these
    channels, so that they spoil no activation scale.

    Shapes
        weight (N, K), statistics of K inputs
    Error
        In the kept columns that of f16, against float activations; weights beyond ±65504 are clipped there.
    Source
        Dettmers et al. 2022, arXiv:2208.07339, section 3.2
    """
    if statistics is None:
        raise UsageError("llm_int8 needs statistics of what the layer reads.", hint="calibrate first, or use rtn")
    count = needs((weight.shape[0], weight.shape[1]))["channels"].shape[0]
    channels = np.sort(np.argsort(-statistics.peak, kind="stable")[:count])
    kept = from_f32(np.clip(weight[:, channels], -65504, 65504), "f16")
    rest = weight.copy()
    rest[:, channels] = 0
    made = first(rest, format, without(statistics, channels))
    effective = stands_for(made)
    effective[:, channels] = kept
    beyond = int((statistics.peak > THRESHOLD).sum())
    notes = made.notes
    if beyond > count:
        notes = (*notes, f"{beyond} channels reach beyond {THRESHOLD:g}; the {count} strongest are kept in f16")
    beside: dict[str, QTensor | F32] = {"outliers": from_floats(_F16, kept), "channels": channels.astype(np.float32)}
    return replace(made, notes=notes, beside=beside, effective=effective)


def without(statistics: Statistics, channels: np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> Statistics:
    """The Statistics of inputs that are zero in ``channels``."""
    moments = statistics.moments.copy()
    moments[channels] = 0
    moments[:, channels] = 0
    mean, magnitude, peak = (part.copy() for part in (statistics.mean, statistics.magnitude, statistics.peak))
    for part in (mean, magnitude, peak):
        part[channels] = 0
    sample = None if statistics.sample is None else statistics.sample.copy()
    if sample is not None:
        sample[:, channels] = 0
    return replace(statistics, moments=moments, mean=mean, magnitude=magnitude, peak=peak, sample=sample)
