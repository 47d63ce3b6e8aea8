"""What was written, compiled and run: on this desk, or on a chip that QEMU plays. Exact counts, no cycles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from scrimp.errors import ScrimpError
from scrimp.export.firmware.targets import TARGETS, Target
from scrimp.integer.program import I32
from scrimp.integer.reference import U8

#: The Debian package of each tool.
PACKAGES = {
    "cc": "gcc",
    "make": "make",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
}
#: Symbols that belong to the test program and not to the network.
_NOT_THE_NETWORK = re.compile(r"main|start|fault|call|move|memcpy|memset|paint|unused|io_\w+|\?")


def missing(target: Target) -> list[str]:
    """Packages to install before ``target`` can be built and run."""
    tools = ["make", "cc", target.compiler, *target.qemu[:1]]
    return sorted({PACKAGES[tool] for tool in tools if shutil.which(tool) is None})


@dataclass(frozen=True, slots=True)
class Ran:
    """``counts``: instructions by symbol of the network alone, for all pictures together; none on a desk."""

    logits: I32
    unused_ram: int | None  #: bytes of RAM that nothing ever touched
    counts: Mapping[str, int] = field(default_factory=dict)


def build(directory: Path, variables: Sequence[str] = ()) -> None:
    """``make all``, with variables of the Makefile set to others: ``CFLAGS=…``."""
    _make(directory, ["all", *variables])


def stream(
    directory: Path,
    target: Target,
    pictures: U8,
    classes: int,
    plugin: Path | None = None,
    variables: Sequence[str] = (),
) -> Ran:
    """Logits of all pictures, through files."""
    (directory / "pictures.bin").write_bytes(pictures.tobytes())
    more = [] if plugin is None else [f"QEMU_MORE=-plugin {plugin},out=counts.tsv"]
    said = _make(directory, ["stream", *more, *variables])
    logits = np.frombuffer((directory / "logits.bin").read_bytes(), "<i4").reshape(-1, classes)
    if len(logits) != len(pictures):
        raise ScrimpError(f"{len(logits)} of {len(pictures)} pictures came back.", hint=said.strip()[-200:])
    unused = re.search(r"never used: (\d+)", said)
    counts = _counts(directory / "counts.tsv") if plugin is not None and target.chip else {}
    return Ran(logits, int(unused[1]) if unused else None, counts)


def plugin_built(directory: Path) -> Path:
    """The counter of instructions, compiled."""
    source, made = directory / "instructions.c", directory / "instructions.so"
    source.write_bytes(files("scrimp.export.firmware").joinpath("simulator", "instructions.c").read_bytes())
    _run(["cc", "-O2", "-fPIC", "-shared", "-o", str(made), str(source)], directory)
    return made


@dataclass(frozen=True, slots=True)
class Size:
    """Of a program: ``flash`` is code and constants, ``ram`` what is static; the stack comes on top."""

    flash: int
    ram: int


def size(directory: Path, target: Target) -> Size:
    """Of ``build/firmware.elf``, by binutils."""
    tool = target.compiler.removesuffix("gcc").removesuffix("cc") + "size"
    line = _run([tool, "build/firmware.elf"], directory).splitlines()[1].split()
    text, data, bss = map(int, line[:3])
    return Size(text + data, data + bss)


def functions(directory: Path, target: Target) -> dict[str, int]:
    """Bytes of each function in ``build/firmware.elf``; ``rest`` is what no symbol has: start-up, words, gaps."""
    tool = target.compiler.removesuffix("gcc") + "nm"
    listing = _run([tool, "-S", "build/firmware.elf"], directory)
    sized = re.findall(r"^[0-9a-f]+ ([0-9a-f]+) ([tTrR]) (\S+)$", listing, re.M)
    found: dict[str, int] = {}
    for digits, _, name in sized:
        if not re.match(r"op\d+_|vector_", name):
            found[_plain(name)] = found.get(_plain(name), 0) + int(digits, 16)
    found["rest"] = size(directory, target).flash - sum(int(digits, 16) for digits, _, _ in sized)
    return found


def _counts(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        count, symbol = line.split("\t")
        name = _plain(symbol)
        if not _NOT_THE_NETWORK.fullmatch(name):
            found[name] = found.get(name, 0) + int(count)
    return found


def _plain(symbol: str) -> str:
    """``plane.constprop.0`` is what the compiler made of ``plane``."""
    return symbol.split(".")[0]


def _make(directory: Path, arguments: Sequence[str]) -> str:
    return _run(["make", "--no-print-directory", "-s", *arguments], directory)


def _run(command: Sequence[str], directory: Path) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, env=clean)
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        raise ScrimpError(f"{Path(command[0]).name} failed in {directory}: {why[-1][:300]}", hint="\n".join(why[-8:-1]))
    return done.stdout


def advice() -> str:
    """What to install before every chip can be played."""
    lacking = sorted({package for target in TARGETS.values() for package in missing(target)})
    if not lacking:
        return "every chip can be played here"
    return f"for all chips: apt-get install --no-install-recommends {' '.join(lacking)}"
