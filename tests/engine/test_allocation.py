"""A step allocates nothing: counted by a library that stands before the C++ runtime's operator new."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

COUNTER = """
#include <atomic>
#include <cstdlib>
#include <new>
static std::atomic<long> calls;
static void* counted(std::size_t bytes) {
  ++calls;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes) { return counted(bytes); }
void* operator new[](std::size_t bytes) { return counted(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
extern "C" long allocations() { return calls.load(); }
"""

STEPS = """
import ctypes, sys
from tiny_network import tiny_engine
counter = ctypes.CDLL(sys.argv[1])
counter.allocations.restype = ctypes.c_long
engine = tiny_engine(sequences=4, context=300)
assert counter.allocations() > 0, "the counter does not stand before the core"
live = [engine.sequences.open() for _ in range(3)]
engine.sequences.extend([(live[0], [1]), (live[1], [2, 3]), (live[2], [4])])
engine.forward([1, 2], 0)
before = counter.allocations()
engine.sequences.extend([(live[0], range(90)), (live[1], [3])])
for position in range(2, 290):
    engine.forward([position % 90], position)
    engine.sequences.extend([(live[2], [5]), (live[1], [6])] if position % 2 else [(live[1], [7])])
live[0].fork().drop()
print(counter.allocations() - before)
"""


@pytest.mark.skipif(shutil.which("c++") is None or sys.platform != "linux", reason="needs a compiler and Linux")
def test_a_step_allocates_nothing(tmp_path):
    library = tmp_path / "counter.so"
    source = tmp_path / "counter.cpp"
    source.write_text(COUNTER)
    subprocess.run(["c++", "-shared", "-fPIC", "-std=c++20", str(source), "-o", str(library)], check=True)
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    found = subprocess.run([sys.executable, "-c", STEPS, str(library)], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) == 0
