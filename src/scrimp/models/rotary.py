"""Rotary position frequencies and their scalings. Source: Su et al. 2021, arXiv:2104.09864; Llama 3.1's code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scrimp.errors import Refused
from scrimp.models.fields import number


def inverse_frequencies(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """``base^(-2i/D)`` for ``i = 0 … D/2-1`` in float32, then the scaling that the config names.

    Reads ``rope_theta`` and ``rope_scaling`` (or transformers 5's ``rope_parameters``). Scalings: none, ``linear`` (all
    divided by the factor), ``llama3`` (long waves divided, short kept, smooth between), ``factors`` (each divided by
    its own, as GGUF files of Llama 3.1 store them).
    """
    merged = {**_scaling(config, "rope_scaling"), **_scaling(config, "rope_parameters")}
    base = number({**config, **merged}, "rope_theta", low=1.0, high=1e12, default=10000.0)
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = (np.float32(1.0) / np.power(np.float32(base), exponents)).astype(np.float32)
    kind = merged.get("rope_type", merged.get("type", "default"))
    if kind in ("default", None):
        return tuple(map(float, plain))
    if kind == "linear":
        return tuple(map(float, plain / np.float32(number(merged, "factor", low=1e-3, high=1e6))))
    if kind == "llama3":
        return tuple(map(float, _llama3(plain, merged)))
    if kind == "factors":
        given = merged.get("factors")
        numbers = (
            given if isinstance(given, list) and all(type(x) in (int, float) and 0 < x < 1e38 for x in given) else []
        )
        factors = np.asarray(numbers, np.float32)
        if factors.shape != plain.shape or np.any(factors <= 0):
            raise Refused(f"config: rope factors must be {plain.size} positive numbers.", hint="the file is damaged")
        return tuple(map(float, plain / factors))
    raise Refused(
        f"Rotary scaling '{str(kind)[:40]}' is not supported.", hint="supported: default, linear, llama3, factors"
    )


def _scaling(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise Refused(f"config: '{key}' is {str(value)[:40]!r}, not an object.", hint="the config.json is damaged")
    return value


def _llama3(plain: np.ndarray[Any, np.dtype[np.float32]], scaling: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    factor = number(scaling, "factor", low=1e-3, high=1e6)
    low = number(scaling, "low_freq_factor", low=1e-3, high=1e6)
    high = number(scaling, "high_freq_factor", low=1e-3, high=1e6)
    original = number(scaling, "original_max_position_embeddings", low=1, high=2**24)
    if high <= low:
        raise Refused(
            f"config: high_freq_factor {high:g} must exceed low_freq_factor {low:g}.", hint="the file is damaged"
        )
    wave = 2 * math.pi / plain
    smooth = (original / wave - low) / (high - low)
    blended = (1 - smooth) * plain / factor + smooth * plain
    return np.where(wave > original / low, plain / factor, np.where(wave < original / high, plain, blended)).astype(
        np.float32
    )
