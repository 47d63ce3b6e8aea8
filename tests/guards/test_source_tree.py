"""Rules of the house: file sizes, import direction, no look-alike characters, no leaked instructions."""

import ast
import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from scrimp import _core

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "scrimp"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "core").rglob("*.cpp"), *(ROOT / "core").rglob("*.h"),
                  *(ROOT / "core").rglob("*.inl"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py"),
                  *(ROOT / "bench").rglob("*.py")])  # fmt: skip

#: Who may import whom: each layer may import those before it (architecture §3), and itself.
LAYERS = ["errors", "progress", "sizes", "_core", "formats", "tensors", "program", "models", "sources", "pictures",
          "engine", "integer", "model", "text", "calibrate", "quantize", "store", "measure", "train", "export", "sweep",
          "cli"]  # fmt: skip
#: Imports against the order, each with its reason.
ALLOWED = {
    ("sources", "store"): "open_source hands a scrimp directory to the store, inside the function",
    ("model", "text"): "a Model brings its tokenizer and generation, inside its methods",
    ("calibrate", "measure"): "a text is cut into windows for calibration as it is for the loss",
    ("quantize", "store"): "the loop over the plan writes each finished tensor to the store",
    ("quantize", "train"): "yaqa asks for the gradients of a network, inside the function",
    ("quantize", "measure"): "compress ends by measuring what it made, inside the function",
}


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_is_longer_than_a_chapter(path):
    assert len(path.read_text().splitlines()) <= 400


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} if node.module == "scrimp" else {node.module}
    return {module for module in found if module.startswith("scrimp.")}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for module in imports_of(path):
        other = layer_of(module)
        if other in LAYERS and LAYERS.index(other) > LAYERS.index(own):
            assert (own, other) in ALLOWED, f"{own} imports {module}, which comes after it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_look_alike_letters_or_hidden_directions(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for char in line:
            name = unicodedata.name(char, "")
            hidden = unicodedata.category(char) == "Cf"
            foreign = name.startswith(("CYRILLIC", "GREEK")) and "tests" not in path.parts and char not in "αβγμσπΣδλκ"
            assert not hidden, f"line {number}: U+{ord(char):04X} {name}"
            assert not foreign, f"line {number}: {name}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path):
    if path.relative_to(PACKAGE).parts[0] == "cli":
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"]  # fmt: skip
    assert not calls, f"print() on line {calls[0].lineno}"


def test_wide_registers_stay_in_their_folders():
    """A plain x86-64 processor must never meet an AVX instruction outside scrimp::avx2 and scrimp::avx512; nor one with
    AVX-512 an instruction of its bf16 extension outside scrimp::avx512::bf16."""
    objdump = shutil.which("objdump")
    if objdump is None or "avx2" not in _core.available_isas():
        pytest.skip("needs objdump on x86-64")
    listing = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    symbol, wide, bf16, leaks = "", 0, 0, set()
    for line in listing.splitlines():
        start = re.match(r"[0-9a-f]+ <(.+)>:", line)
        if start:
            symbol = start[1]
        elif re.search(r"%[yz]mm\d|\tv[a-z0-9]+ .*%xmm", line):
            wide += 1
            if "avx2" not in symbol and "avx512" not in symbol:
                leaks.add(symbol)
            if re.search(r"\tv\w*bf16", line):
                bf16 += 1
                if "avx5124bf16" not in symbol:
                    leaks.add(symbol)
    assert wide > 1000, "the disassembly shows no vector code at all: the check is blind"
    assert bf16 > 100, "so is that of bf16"
    assert not leaks
