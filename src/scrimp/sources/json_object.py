"""JSON from a stranger: bounded, an object, every key once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from scrimp.errors import Refused
from scrimp.sources.mapped import check_regular

_FILE_BYTES = 10_000_000


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file (``config.json``, an index): an object of at most 10 MB without duplicate keys."""
    check_regular(path)
    size = path.stat().st_size
    if size > _FILE_BYTES:
        raise Refused(
            f"{path} has {size:,} bytes; the limit is {_FILE_BYTES:,}.", hint="this is no model configuration"
        )
    return parse_json_object(path.read_bytes(), str(path))


def parse_json_object(raw: bytes, what: str) -> dict[str, Any]:
    """JSON bytes → a dictionary; Refused when it is no JSON, no object, too deep, or repeats a key."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
            raise Refused(f"{what}: the key '{twice[:80]}' appears twice.", hint="the file is damaged or hostile")
        return found

    try:
        parsed = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refused(f"{what} is not valid JSON: {reason}.", hint="the file is damaged or incomplete") from None
    if not isinstance(parsed, dict):
        raise Refused(f"{what} holds a JSON {type(parsed).__name__}, not an object.", hint="the file is damaged")
    return parsed
