"""The one place that turns bytes and seconds into words, and words into bytes. Decimal units: 1 MB = 10^6 bytes."""

from __future__ import annotations

import re

from scrimp.errors import UsageError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "K": 10**3, "MB": 10**6, "M": 10**6, "GB": 10**9, "G": 10**9}


def format_bytes(size_bytes: int) -> str:
    """
    >>> format_bytes(98_362_432), format_bytes(512)
    ('98.4 MB', '512 B')
    """
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def parse_bytes(text: str) -> int:
    """
    >>> parse_bytes("60MB"), parse_bytes("1.5 GB")
    (60000000, 1500000000)
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([kKmMgG]?[bB]?)\s*", text)
    if not match:
        raise UsageError(f"'{text}' is not a size.", hint="write it like 60MB or 1.5GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def format_seconds(seconds: float) -> str:
    """
    >>> format_seconds(0.0123), format_seconds(75)
    ('12 ms', '1:15')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
