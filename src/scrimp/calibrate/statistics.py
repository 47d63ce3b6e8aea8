"""Statistics: what calibration measured at the input of a linear layer."""

from __future__ import annotations

from dataclasses import dataclass

from scrimp.formats.code import F64
from scrimp.tensors import F32


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Statistics:
    """Of the inputs ``X (T, K)`` that a linear layer saw, T tokens in all.

    A layer's output error is ``‖X (W - Ŵ)ᵀ‖² = tr((W - Ŵ) H (W - Ŵ)ᵀ)``: the moments are all a method needs of it.
    """

    count: int  #: tokens, T
    moments: F64  #: ``H = XᵀX`` (K, K), a sum over tokens
    mean: F32  #: mean of x, per channel (K,)
    magnitude: F32  #: mean of |x|, per channel (K,)
    peak: F32  #: max of |x|, per channel (K,)
    sample: F32 | None = None  #: some of the inputs themselves (rows, K), evenly spread over the text
    logits: bool = False  #: whether the layer's outputs are the network's
    drift: F64 | None = None  #: ``Σ (x - x̂) x̂ᵀ`` (K, K), where these inputs x̂ stand in for the original network's x
    fisher: F32 | None = None  #: ``mean g gᵀ`` (N, N) of gradients g at the outputs of one matrix (train/fisher.py)
    behind: F64 | None = None  #: ``Σ (r - r̂) x̂ᵀ`` (N, K), where the layer's outputs are added to r̂ in place of r
