"""How many numbers a second are encoded, on one core, for the float and integer families.

    python bench/formats.py

Formats take turns, so that a machine that slows down for a while slows them all. A processor second is one that this
process ran for, whatever else the machine did; encoding has one thread.
"""

from __future__ import annotations

import argparse
import json
import os
from statistics import median
from time import perf_counter, process_time

import numpy as np
from beside_llamacpp import commit, processor

from scrimp.engine import pick_isa
from scrimp.formats import encode

FORMATS = (
    "fp8_e4m3",
    "fp8_e5m2",
    "fp6_e2m3",
    "fp4_e2m1",
    "bf16",
    "f16",
    "int8:g64",
    "int4:g64",
    "mxfp4",
    "nf4",
    "q4_k",
)
COLUMNS = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--millions", type=int, default=16, help="numbers, in units of 2^20")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    w = np.random.default_rng(0).standard_normal((options.millions * 2**20 // COLUMNS, COLUMNS), np.float32)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in options.formats}
    for _ in range(options.turns):
        for name, taken in turns.items():
            begin = process_time(), perf_counter()
            encode(w, name)
            taken.append((process_time() - begin[0], perf_counter() - begin[1]))
    millions = w.size / 1e6
    rates = {name: millions / min(cpu for cpu, _ in taken) for name, taken in turns.items()}
    print("| format | million values per processor second, best | median | per second, best |")
    print("|---|---:|---:|---:|")
    for name, taken in turns.items():
        middle, wall = median(cpu for cpu, _ in taken), min(wall for _, wall in taken)
        print(f"| {name} | {rates[name]:.0f} | {millions / middle:.0f} | {millions / wall:.0f} |")
    machine = {"processor": processor(), "isa": pick_isa(None), "load": os.getloadavg()[0], "commit": commit()}
    found = {name: round(rate, 1) for name, rate in rates.items()}
    print(json.dumps({"values": w.size, "turns": options.turns, "million_per_processor_second": found, **machine}))


if __name__ == "__main__":
    main()
