"""Decoding on a machine that has other work: does it slow down by its share of the cores, or collapse?

    python bench/busy_neighbour.py [--model smollm2-135m] [--neighbours 0,1,2] [--threads 1,2] [--decode 32]
                                   [--rounds 7]

Neighbours are processes that only count; between turns they are stopped. All numbers of neighbours and threads take
turns in one process, medians. Beside each speed stands its share of the speed alone, and the share of the cores that is
fair: with C cores, T threads and n neighbours T · min(1, C / (T + n)) of min(T, C).
A step has hundreds of places where threads wait for each other. Waiting there for a thread whose core is taken costs a
time slice of milliseconds each time: docs/notes/004 had a ninth of the speed beside one neighbour, until it claimed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from statistics import median
from time import perf_counter, sleep

from where import here

import scrimp
from scrimp.cli import bar, output
from scrimp.engine.machine import physical_cores
from scrimp.errors import ScrimpError
from scrimp.model import Model

#: Seconds until the system has spread new neighbours over the cores.
SETTLE_S = 0.3


@contextmanager
def stopped_neighbours(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that count, stopped."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            made.append(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            made[-1].send_signal(signal.SIGSTOP)
        yield made
    finally:
        for process in made:
            process.kill()  # ends stopped ones, too
            process.wait()


@contextmanager
def running(neighbours: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    for process in neighbours:
        process.send_signal(signal.SIGCONT)
    try:
        if neighbours:
            sleep(SETTLE_S)
        yield
    finally:
        for process in neighbours:
            process.send_signal(signal.SIGSTOP)


def decode_s(model: Model, prompt: int, count: int) -> float:
    begin = perf_counter()
    for position in range(prompt, prompt + count):
        model.step([position % model.vocab_size], position)
    return perf_counter() - begin


def fair(threads: int, neighbours: int, cores: int) -> float:
    """
    >>> [round(fair(2, n, 2), 2) for n in (0, 1, 2)], round(fair(1, 1, 2), 2)
    ([1.0, 0.67, 0.5], 1.0)
    """
    return threads * min(1.0, cores / (threads + neighbours)) / min(threads, cores)


def numbers(words: str) -> list[int]:
    found = [int(word) for word in words.split(",")]
    if min(found) < 0:
        raise ValueError
    return list(dict.fromkeys(found))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--neighbours", type=numbers, default=[0, 1, 2], metavar="N,…")
    parser.add_argument("--threads", type=numbers, default=sorted({1, physical_cores()}), metavar="N,…")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    if min(*options.threads, options.prompt, options.decode, options.rounds) < 1:
        parser.error("threads, prompt, decode and rounds are at least 1")
    try:
        measure(options)
    except ScrimpError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def measure(options: argparse.Namespace) -> None:
    context = options.prompt + options.decode
    models = {threads: scrimp.open(options.model, threads=threads, context=context) for threads in options.threads}
    for model in models.values():
        model.step([(7919 * i) % model.vocab_size for i in range(options.prompt)], 0)
        decode_s(model, options.prompt, options.decode)
    taken: dict[tuple[int, int], list[float]] = {case: [] for case in product(options.threads, options.neighbours)}
    progress = bar.progress()
    progress.start("turns", options.rounds * len(taken))
    with stopped_neighbours(max(options.neighbours)) as neighbours:
        for _ in range(options.rounds):
            for (threads, count), seconds in taken.items():
                with running(neighbours[:count]):
                    seconds.append(decode_s(models[threads], options.prompt, options.decode))
                progress.advance()
    progress.finish()
    cores, rows, found = len(os.sched_getaffinity(0)), [], []
    for (threads, count), seconds in taken.items():
        speed = options.decode / median(seconds)
        alone = options.decode / median(taken[threads, 0]) if (threads, 0) in taken else None
        found.append({"threads": threads, "neighbours": count, "tokens_per_s": speed,
                      "share": speed / alone if alone else None, "fair": fair(threads, count, cores),
                      "turns": [options.decode / s for s in seconds]})  # fmt: skip
        share = f"{100 * speed / alone:.0f} %" if alone else ""
        spread = f"{options.decode / max(seconds):.1f} … {options.decode / min(seconds):.1f}"
        fairly = f"{100 * fair(threads, count, cores):.0f} %"
        rows.append((f"{threads} threads, {count} neighbours", f"{speed:.1f}", spread, share, fairly))
    title = f"{options.model}, decode of {options.decode}, {cores} cores, {options.rounds} rounds, tokens/s"
    output.print_table(("", "median", "min … max", "of alone", "fair"), rows, title=title)
    print(json.dumps({"model": options.model, "decode": options.decode, "rows": found} | here()))


if __name__ == "__main__":
    sys.exit(main())
