"""What a sweep has found so far: one line per finished cell, on the disk before the next one begins."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from scrimp.errors import ScrimpError
from scrimp.store.partial import lock
from scrimp.sweep.cell import Result, from_json


class Journal:
    """Results by the key of their cell. A path of None remembers only until the end."""

    def __init__(self, path: Path | None, *, fresh: bool = False) -> None:
        self.found: dict[str, Result] = {}
        self._file = -1
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            lock(self._file, f"Another sweep writes {path}.")
            if fresh:
                os.ftruncate(self._file, 0)
            self._read(path)
        except BaseException:
            self.close()
            raise

    def add(self, key: str, result: Result) -> None:
        """Remember a result. One that failed is written down, and tried again by the next sweep."""
        self.found[key] = result
        if self._file >= 0:  # a cut-off line before it must not swallow it
            os.write(self._file, f"\n{json.dumps({'key': key, **result.to_json()})}\n".encode())
            os.fsync(self._file)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, path: Path) -> None:
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
        understood = 0
        for line in lines:
            with suppress(ValueError, TypeError, KeyError, RecursionError):  # the last line may be cut off
                document = json.loads(line)
                result = from_json(document)
                understood += 1
                if not result.error:
                    self.found[str(document["key"])] = result
        if len(lines) > 1 and not understood:
            raise ScrimpError(f"{path} is no journal of a sweep.", hint="name another place with -o")
