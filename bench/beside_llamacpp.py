"""Decode and prefill beside llama.cpp in an environment of its own: the same file, threads and tokens, turn by turn.

    python bench/beside_llamacpp.py [--model smollm2-135m] [--peer-python PATH] [--threads N] [--repeat 9]

`scrimp bench MODEL --beside llama.cpp` measures the same where llama-cpp-python is installed beside scrimp. Built from
source for this machine, it also can have an environment of its own:

    python -m venv .peer
    CMAKE_ARGS="-DGGML_NATIVE=ON" .peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    python bench/beside_llamacpp.py --peer-python .peer/bin/python

How turns are taken: src/scrimp/measure/beside.py; what llama.cpp is asked: src/scrimp/measure/llama_worker.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from where import here

from scrimp import _core
from scrimp.cli import output
from scrimp.engine import default_threads
from scrimp.errors import ScrimpError
from scrimp.measure.beside import gguf_of, measure_beside


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="smollm2-135m", help="a catalogue name, or a .gguf that both can open")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has llama_cpp")
    parser.add_argument("--threads", type=int, default=0, help="for both; one per core unless given")
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    if subprocess.run([options.peer_python, "-c", "import llama_cpp"], capture_output=True, check=False).returncode:
        print(f"skipped: {options.peer_python} has no llama_cpp.\n\n{__doc__}", file=sys.stderr)
        return 0
    try:
        compare(options)
    except ScrimpError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def compare(options: argparse.Namespace) -> None:
    """The table, and one JSON line."""
    threads = options.threads or default_threads()
    found = measure_beside(
        gguf_of("llama.cpp", options.model), threads=threads, prefill=options.prefill, decode=options.decode,
        rounds=options.repeat, python=options.peer_python,
    )  # fmt: skip
    rows = [
        (f"{name} of {count}", f"{phase.scrimp.median:.1f}", f"{phase.peer.median:.1f}", f"{phase.ratio:.2f}")
        for name, count, phase in (
            ("prefill", options.prefill, found.prefill),
            ("decode", options.decode, found.decode),
        )
    ]
    title = f"{found.file}, {threads} threads, medians of {options.repeat} interleaved turns, tokens/s"
    output.print_table(("", "scrimp", "llama.cpp", "ratio"), rows, title=title)
    reading = max(_core.read_bandwidth(256 * 10**6, threads, 5))
    print(json.dumps(found.to_json() | here() | {"memory_read_gb_per_s": reading}))


if __name__ == "__main__":
    sys.exit(main())
