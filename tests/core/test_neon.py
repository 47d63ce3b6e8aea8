"""The kernels of AArch64 on processors that QEMU plays: all that is needed is a cross compiler and an emulator.

``differential/`` is one program: kernels, random matrices of every element, and what double precision makes of them.
Buffers end where memory ends, so a kernel that reads or writes too far is caught, too. SCRIMP_ALL_CHIPS=1 compiles as
the wheel is compiled and runs ten times as many cases.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE, DRIVER = ROOT / "core", Path(__file__).with_name("differential")
COMPILER, EMULATOR, DISASSEMBLER = "aarch64-linux-gnu-g++", "qemu-aarch64", "aarch64-linux-gnu-objdump"
FULL = bool(os.environ.get("SCRIMP_ALL_CHIPS"))
FLAGS = ["-std=c++20", "-ffp-contract=off", "-O3" if FULL else "-O1"]
#: Of each processor what its kernel is to find: an old one, one with dot products, and one with everything.
PROCESSORS = {
    "cortex-a53": ["scalar", "neon"],
    "cortex-a76": ["scalar", "neon", "neon_dotprod"],
    "max": ["scalar", "neon", "neon_dotprod", "neon_i8mm"],
}
KERNELS = {"activation", "add", "attention", "attention_pieces", "cholesky", "divergence", "gram", "integer_product",
           "layer_norm", "linear_f32", "linear_int8", "linear_int8_exact", "log_sum_exp", "quantize", "requantize",
           "rms_norm", "rope", "softcap", "sweep", "sweep_both", "swiglu", "to_codes", "to_f16",
           "weighted_sums"}  # fmt: skip


def own_flags():
    """What CMakeLists.txt gives single files of the folder."""
    pattern = r'core/(kernels/neon/\w+\.cpp) PROPERTIES COMPILE_OPTIONS\s+"([^"]+)"'
    return {CORE / name: flags.split(";") for name, flags in re.findall(pattern, (ROOT / "CMakeLists.txt").read_text())}


def sources():
    kernels = [*(CORE / "kernels" / "scalar").glob("*.cpp"), *(CORE / "kernels" / "neon").glob("*.cpp")]
    return sorted([*kernels, CORE / "dispatch.cpp", CORE / "packing.cpp", *DRIVER.glob("*.cpp")])


def compiled(source, to):
    command = [COMPILER, *FLAGS, *own_flags().get(source, []), "-I", CORE, "-c", source, "-o", to]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return to


def built(out):
    largest_first = sorted(sources(), key=lambda path: -path.stat().st_size)
    with ThreadPoolExecutor(2) as pool:
        objects = pool.map(lambda path: compiled(path, out / f"{path.parent.name}_{path.stem}.o"), largest_first)
    subprocess.run([COMPILER, "-static", *objects, "-o", out / "differential"], check=True)
    return out / "differential"


@pytest.fixture(scope="module")
def program(request, tmp_path_factory):
    """The compiled comparison, kept until a source changes."""
    lacking = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    if lacking:
        pytest.skip(f"needs {' and '.join(lacking)}: apt-get install g++-aarch64-linux-gnu qemu-user")
    texts = [path for folder in (CORE, DRIVER) for path in sorted(folder.rglob("*")) if path.suffix in (".h", ".inl")]
    seen = hashlib.sha256(repr((FLAGS, own_flags())).encode())
    for path in [*sources(), *texts]:
        seen.update(path.read_bytes())
    kept = Path(request.config.cache.mkdir("aarch64")) / seen.hexdigest()[:16]
    with (kept.parent / "lock").open("w") as lock:  # one worker of pytest compiles, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            for old in kept.parent.glob("????????????????"):
                old.unlink()
            shutil.move(built(tmp_path_factory.mktemp("aarch64")), kept)
    return kept


def run(program, processor, *words):
    command = [EMULATOR, "-cpu", processor, program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_processor_runs_what_it_has_and_no_more(processor, program):
    assert run(program, processor).stdout.split() == PROCESSORS[processor]
    for name in set(PROCESSORS["max"]) - set(PROCESSORS[processor]):
        assert run(program, processor, name).returncode == 2


# the best of each processor: it runs without instructions that only a later one has
@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_agree_with_double_precision(processor, program):
    isa = PROCESSORS[processor][-1]
    ran = run(program, processor, isa, *["full"] * FULL)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = re.findall(r"^(\w+) (\w+) cases (\d+) failures 0 worst ([\d.]+)$", ran.stdout, re.MULTILINE)
    assert {(name, kernel) for name, kernel, _, _ in lines} == {(isa, kernel) for kernel in KERNELS}
    assert all(int(cases) > 0 for _, _, cases, _ in lines)


def test_dot_products_stay_with_the_processors_that_have_them(program):
    listing = subprocess.run([DISASSEMBLER, "-dC", "--no-show-raw-insn", program], capture_output=True, text=True,
                             check=True).stdout  # fmt: skip
    homes = {"sdot": ("neon::dotprod",), "smmla": ("neon::i8mm",)}
    symbol, found, leaks = "", dict.fromkeys(homes, 0), set()
    for line in listing.splitlines():
        if start := re.match(r"[0-9a-f]+ <(.+)>:", line):
            symbol = start[1]
        elif newer := re.match(r"\s*[0-9a-f]+:\s+(?:[su]{1,2}(dot|mmla))\s", line):
            kind = "s" + newer[1]
            found[kind] += 1
            if not any(home in symbol for home in homes[kind]):
                leaks.add((kind, symbol))
    assert all(count > 20 for count in found.values()), "the disassembly shows no products at all: the check is blind"
    assert not leaks
