"""Decode and prefill beside llama.cpp: the same file, the same threads, one run, turn by turn.

    python bench/beside_llamacpp.py [--model smollm2-135m] [--peer-python PATH] [--threads N] [--repeat 9]

The peer is llama-cpp-python, built from source for this machine, in an environment of its own:

    python -m venv .peer
    CMAKE_ARGS="-DGGML_NATIVE=ON" .peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python
    python bench/beside_llamacpp.py --peer-python .peer/bin/python

Each engine lives in its own process, loads the model once, warms up, and then waits for its turns; while one runs, the
other sleeps. llama.cpp is driven through its C interface (one llama_decode per prompt or token), so that no Python of
its binding is counted. Both compute logits for the last token only, and sample nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

#: Seconds between turns: the threads of the engine that just ran have gone to sleep by then.
PAUSE_S = 0.05

Turn = Callable[[], dict[str, float]]


def token(i: int, vocabulary: int) -> int:
    """The same meaningless prompt for both."""
    return (7919 * i) % vocabulary


def ours(path: str, threads: int, prefill: int, decode: int) -> tuple[Turn, dict[str, Any]]:
    """One turn of scrimp."""
    import scrimp

    model = scrimp.open(path, threads=threads, context=prefill + decode)
    tokens = [token(i, model.vocab_size) for i in range(prefill + decode)]

    def turn() -> dict[str, float]:
        begin = perf_counter()
        model.step(tokens[:prefill], 0)
        middle = perf_counter()
        for position in range(prefill, prefill + decode):
            model.step(tokens[position : position + 1], position)
        return {"prefill": prefill / (middle - begin), "decode": decode / (perf_counter() - middle)}

    return turn, {"version": scrimp.__version__, "isa": model.isa}


def theirs(path: str, threads: int, prefill: int, decode: int) -> tuple[Turn, dict[str, Any]]:
    """One turn of llama.cpp through its C interface."""
    import llama_cpp as c

    silence = c.llama_log_callback(lambda level, text, data: None)
    c.llama_log_set(silence, None)
    c.llama_backend_init()
    model_settings = c.llama_model_default_params()
    model_settings.n_gpu_layers = 0
    model = c.llama_model_load_from_file(path.encode(), model_settings)
    settings = c.llama_context_default_params()
    settings.n_ctx = prefill + decode
    settings.n_batch = settings.n_ubatch = 512
    settings.n_threads = settings.n_threads_batch = threads
    context = c.llama_init_from_model(model, settings)
    if not model or not context:
        raise SystemExit(f"llama.cpp cannot open {path}")
    vocabulary = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    tokens = (c.llama_token * (prefill + decode))(*(token(i, vocabulary) for i in range(prefill + decode)))
    singles = [(c.llama_token * 1)(one) for one in tokens]
    memory = c.llama_get_memory(context)

    def run(batch: Any) -> None:
        if c.llama_decode(context, batch):
            raise SystemExit("llama_decode failed")
        c.llama_synchronize(context)

    def turn(_keep_alive: object = silence) -> dict[str, float]:
        c.llama_memory_clear(memory, False)
        begin = perf_counter()
        for start in range(0, prefill, settings.n_batch):
            piece = (c.llama_token * min(settings.n_batch, prefill - start))(
                *tokens[start : start + settings.n_batch][: prefill - start]
            )
            run(c.llama_batch_get_one(piece, len(piece)))
        middle = perf_counter()
        for one in singles[prefill:]:
            run(c.llama_batch_get_one(one, 1))
        return {"prefill": prefill / (middle - begin), "decode": decode / (perf_counter() - middle)}

    return turn, {"version": c.__version__, "isa": c.llama_print_system_info().decode().strip()}


def work(name: str, path: str, threads: int, prefill: int, decode: int) -> None:
    """A worker: warms up, says so, then takes a turn for every line it reads."""
    turn, facts = {"scrimp": ours, "llama.cpp": theirs}[name](path, threads, prefill, decode)
    turn()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        print(json.dumps(turn()), flush=True)


class Worker:
    """An engine in a process of its own, which runs only when told to."""

    def __init__(self, python: str, name: str, path: str, threads: int, prefill: int, decode: int) -> None:
        command = [python, __file__, "--work", name, "--model", path, "--threads", str(threads)]
        self.process = subprocess.Popen(
            [*command, "--prefill", str(prefill), "--decode", str(decode)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.facts = self._answer()

    def turn(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--model", default="smollm2-135m", help="a catalogue name, or a .gguf that both can open")
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has llama_cpp")
    parser.add_argument("--threads", type=int, default=0, help="for both; one per core unless given")
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--work", choices=("scrimp", "llama.cpp"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.model, options.threads, options.prefill, options.decode)
        return 0
    if subprocess.run([options.peer_python, "-c", "import llama_cpp"], capture_output=True, check=False).returncode:
        print(f"skipped: {options.peer_python} has no llama_cpp.\n\n{__doc__}", file=sys.stderr)
        return 0
    return compare(options)


def compare(options: argparse.Namespace) -> int:
    """Interleaved turns, the order swapped every round; then the table, and one JSON line."""
    from scrimp import _core
    from scrimp.engine import default_threads
    from scrimp.sources.pull import locate

    threads = options.threads or default_threads()
    path = str(locate(options.model))
    sizes = (threads, options.prefill, options.decode)
    workers = {
        "scrimp": Worker(sys.executable, "scrimp", path, *sizes),
        "llama.cpp": Worker(options.peer_python, "llama.cpp", path, *sizes),
    }
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for round_ in range(options.repeat):
        for name in sorted(workers, reverse=bool(round_ % 2)):
            sleep(PAUSE_S)
            turns[name].append(workers[name].turn())
    for worker in workers.values():
        worker.close()
    found: dict[str, Any] = {
        phase: {
            **{name: median(turn[phase] for turn in taken) for name, taken in turns.items()},
            "ratio": median(a[phase] / b[phase] for a, b in zip(turns["scrimp"], turns["llama.cpp"], strict=True)),
            "turns": {name: [round(turn[phase], 1) for turn in taken] for name, taken in turns.items()},
        }
        for phase in ("prefill", "decode")
    }
    print(f"{Path(path).name}, {threads} threads, medians of {options.repeat} interleaved turns, tokens/s")
    print(f"{'':<16}{'scrimp':>10}{'llama.cpp':>12}{'ratio':>8}")
    for phase, count in (("prefill", options.prefill), ("decode", options.decode)):
        row = found[phase]
        print(f"{phase + f' of {count}':<16}{row['scrimp']:>10.1f}{row['llama.cpp']:>12.1f}{row['ratio']:>8.2f}")
    machine = {
        "processor": processor(), "threads": threads, "load": os.getloadavg()[0], "commit": commit(),
        "memory_read_gb_per_s": max(_core.read_bandwidth(256 * 10**6, threads, 5)),
    }  # fmt: skip
    print(
        json.dumps({"model": Path(path).name, **found, **machine, "engines": {n: w.facts for n, w in workers.items()}})
    )
    return 0


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
