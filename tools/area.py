"""Synthesise every circuit of the area table and write src/scrimp/formats/area_table.toml. Needs ``scrimp[area]``.

A circuit that the table already has is kept, unless ``--all`` is given or Yosys has another version.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from scrimp.formats.cost_area import catalogue_units
from scrimp.formats.synthesis import FLOW, Area, synthesise, version

TABLE = Path(__file__).resolve().parents[1] / "src" / "scrimp" / "formats" / "area_table.toml"


def page(areas: dict[str, Area]) -> str:
    """The table as TOML."""
    lines = [
        "# Written by tools/area.py: cells and estimated transistors of one multiply-accumulate per pair of formats.",
        f'yosys = "{version()}"',
        f'flow = "{FLOW}"',
        "",
        "[units]",
    ]
    lines += [
        f'"{name}" = {{ cells = {a.cells}, transistors = {a.transistors}, multiplier = "{a.multiplier}" }}'
        for name, a in sorted(areas.items())
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    known: dict[str, Area] = {}
    if TABLE.exists() and "--all" not in sys.argv:
        old = tomllib.loads(TABLE.read_text())
        if old["yosys"] == version() and old["flow"] == FLOW:
            known = {name: Area(**row) for name, row in old["units"].items()}
    units, areas = catalogue_units(), {}
    for number, (name, unit) in enumerate(units.items(), 1):
        areas[name] = known.get(name) or synthesise(unit)
        print(f"{number:3} of {len(units)}  {areas[name].transistors:7,}  {name}", flush=True)
        TABLE.write_text(page(known | areas))
    TABLE.write_text(page(areas))
    return 0


if __name__ == "__main__":
    sys.exit(main())
