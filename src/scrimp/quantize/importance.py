"""What an error of each input costs when all others make up for it: where scales are chosen before codes are."""

from __future__ import annotations

import numpy as np

from scrimp.formats.code import F64
from scrimp.quantize.by_block import nearest
from scrimp.quantize.gptq import factorize
from scrimp.quantize.grid import Levels, Parts
from scrimp.quantize.weighted import choose
from scrimp.tensors import F32


def pivots(moments: F64) -> F32:
    """``R_kk²`` of GPTQ's factor for each input, in the inputs' order; ones where H has no factor."""
    order = np.argsort(-moments.diagonal(), kind="stable")
    factor, _ = factorize(moments[np.ix_(order, order)])
    found = np.ones(len(moments), np.float32)
    if factor is not None:
        found[order] = np.square(factor.diagonal())
    return found


def weighted_start(weight: F32, levels: Levels, moments: F64) -> Parts:
    """Scales as GPTQ chooses them, from the weights as they are, and the nearest levels."""
    cost = pivots(moments)
    return nearest(weight, levels, lambda w, inputs, part, whole: choose(w, part, cost[inputs], whole=whole))
