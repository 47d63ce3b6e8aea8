"""Which model was a store made of? What the store says of it, found again and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scrimp import models
from scrimp.errors import Refused
from scrimp.sources import Source, open_source
from scrimp.sources.catalogue import cache_directory
from scrimp.sources.json_object import read_json
from scrimp.sources.locate import locate
from scrimp.store import documents
from scrimp.store.partial import SCRIMP_JSON

_HINT = "name it with --reference"


def open_original(store: Source, reference: str | None) -> tuple[Source, tuple[str, ...]]:
    """The model that ``store`` was made of, and what is odd about it.

    Without a ``reference`` it is looked for by the name in the store's record: beside the store, in the working
    directory, among the pulled models; its SHA-256 must be the one recorded. Refused when it is not found, or has
    another vocabulary.
    """
    recorded = read_json(store.path / SCRIMP_JSON).get("source")
    made_of: dict[str, Any] = recorded if isinstance(recorded, dict) else {}
    found = _find(store.path, made_of) if reference is None else open_source(locate(reference))
    try:
        _check(store, found)
        same = documents.source_hashes(found) == made_of.get("sha256")
    except BaseException:
        found.close()
        raise
    return found, () if same else (f"{found.path.name} is not the file that this was made of, by its checksum",)


def _find(store: Path, made_of: dict[str, Any]) -> Source:
    name, hashes = made_of.get("name"), made_of.get("sha256")
    if not isinstance(name, str) or not name or Path(name).name != name or not isinstance(hashes, dict):
        raise Refused(f"{store} does not say well enough what it was made of.", hint=_HINT)
    for path in _places(store, name):
        if path.exists():
            found = open_source(path)
            if documents.source_hashes(found) == hashes:
                return found
            found.close()
    raise Refused(f"{store} was made of {name[:80]}, which is not where it could be expected.", hint=_HINT)


def _places(store: Path, name: str) -> Iterator[Path]:
    yield store.resolve().parent / name
    yield Path(name)
    yield cache_directory() / name
    if cache_directory().is_dir():
        for directory in sorted(cache_directory().iterdir()):
            yield directory / name


def _check(store: Source, original: Source) -> None:
    sides = [models.build(source.config)[0].vocab for source in (store, original)]
    if sides[0] != sides[1]:
        raise Refused(f"{original.path} has a vocabulary of {sides[1]:,} and {store.path} one of {sides[0]:,}.",
                      hint="give the model that it was made of with --reference")  # fmt: skip
