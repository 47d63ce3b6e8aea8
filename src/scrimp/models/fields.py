"""Typed, bounded reading of a ``config.json``: a stranger's file until every value is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scrimp.errors import Refused

_HINT = "the config.json (or the file's metadata) is damaged or of an unsupported kind"


def integer(config: Mapping[str, Any], key: str, *, low: int = 1, high: int = 2**24, default: int | None = None) -> int:
    """An integer in ``[low, high]``; ``default`` when the key is absent or null."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(f"config: '{key}' is {value!r}, not an integer.", hint=_HINT)
    if not low <= value <= high:
        raise Refused(f"config: '{key}' is {value:,}; it must lie in {low:,} … {high:,}.", hint=_HINT)
    return value


def number(config: Mapping[str, Any], key: str, *, low: float, high: float, default: float | None = None) -> float:
    """A finite number in ``[low, high]``; ``default`` when the key is absent or null."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise Refused(f"config: '{key}' is {value!r}, not a number.", hint=_HINT)
    if not low <= value <= high:
        raise Refused(f"config: '{key}' is {str(value)[:20]}; it must lie in {low:g} … {high:g}.", hint=_HINT)
    return float(value)


def flag(config: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Refused(f"config: '{key}' is {value!r}, not true or false.", hint=_HINT)
    return value
