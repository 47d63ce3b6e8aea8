"""Ternary weights as BitNet's Hugging Face checkpoints hold them.

``X.weight`` is uint8 ``(N/4, K)``: bits ``2i, 2i + 1`` of row ``r`` are the codes of row ``r + i·N/4``; 0, 1, 2 mean
-1, 0, 1. Beside it lies ``X.weight_scale (1,)``, and what it means depends on ``linear_class`` in the config:

============== ====================================================================================
autobitlinear  weights are multiplied by it (microsoft/bitnet-b1.58-2B-4T)
bitlinear      weights are divided by it, the default of that key (onebitllms, older conversions)
============== ====================================================================================

A checkpoint of ``quantization_mode`` "online" holds the floats of training, which become ternary when they are read:
``round(w / s)`` clipped to -1 … 1, ``s`` the mean of ``|w|``. Source: transformers, integrations/bitnet.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.tensors import F32, QTensor, from_codes, to_f32

Convention = Literal["multiply", "divide", "online"]
#: Of a packed weight's name, and of its scale's.
WEIGHT, SCALE = ".weight", ".weight_scale"
#: Least mean magnitude that is divided by, as in training.
_LEAST_SCALE = 1e-5


def convention(directory: Path, quantization: Mapping[str, Any]) -> Convention:
    """What the ``quantization_config`` of a BitNet says; Refused, by name, where that is not read here."""
    kinds: dict[object, Convention] = {"autobitlinear": "multiply", "bitlinear": "divide"}
    kind, mode = quantization.get("linear_class", "bitlinear"), quantization.get("quantization_mode", "offline")
    if quantization.get("use_rms_norm"):
        raise Refused(f"{directory}: use_rms_norm puts a norm before every product, which is not supported.",
                      hint="BitNet b1.58 2B4T has none there")  # fmt: skip
    if not isinstance(kind, str) or kind not in kinds or mode not in ("offline", "online"):
        raise Refused(f"{directory}: linear_class {str(kind)[:40]!r} with quantization_mode {str(mode)[:40]!r} is not "
                      "known.", hint="known: autobitlinear or bitlinear, offline or online")  # fmt: skip
    return "online" if mode == "online" else kinds[kind]


def unpack(what: str, packed: NDArray[np.uint8], scale: NDArray[Any], kind: str, convention: Convention) -> QTensor:
    """``packed (N/4, K)`` and the bytes of one number of ``kind`` → QTensor ``(N, K)`` with one scale.

    Exact, but for the one division of the convention that divides. Refused, with ``what`` it is, where it is damaged.
    """
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None, None]
    codes = ((packed >> shifts) & np.uint8(3)).reshape(-1, packed.shape[1])
    if codes.max(initial=0) > 2:
        raise Refused(f"{what} holds codes of 3, which are no ternary weights.", hint="the file is damaged")
    value = float(to_f32(scale, kind)[0])
    if not 0 < value < float("inf"):
        raise Refused(f"{what}_scale is {value:g}, not a positive number.", hint="the file is damaged")
    if convention == "divide":
        kind, scale = "f32", np.array([1 / np.float32(value)], np.float32)
    return from_codes(parse(f"ternary:tensor@{kind}"), codes, scale.reshape(1, 1))


def ternarize(weight: F32) -> QTensor:
    """The floats of training ``(N, K)`` as the network that was trained saw them."""
    scale = np.float32(max(np.abs(weight).mean(dtype=np.float64), _LEAST_SCALE))
    codes = np.clip(np.rint(weight / scale), -1, 1).astype(np.int8) + 1
    return from_codes(parse("ternary:tensor@f32"), codes.astype(np.uint8), scale.reshape(1, 1))
