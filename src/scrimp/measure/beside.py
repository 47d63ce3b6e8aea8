"""Speed beside another engine: the same file, threads and tokens, turn by turn in one run.

Each engine lives in its own process, loads the model once, warms up, and then waits for its turns; while one runs, the
other sleeps. A machine that slows down for a while slows both, so the ratio of a round means more than either speed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from scrimp.errors import ScrimpError, UsageError
from scrimp.measure import llama_worker
from scrimp.measure.speed import Rate
from scrimp.progress import SILENT, Progress
from scrimp.sources.locate import locate
from scrimp.sources.open import GGUF_MAGIC

#: The engines that there is a worker for: the module it imports.
PEERS = {"llama.cpp": "llama_cpp"}
#: Seconds between turns: the threads of the engine that just ran have gone to sleep by then.
PAUSE_S = 0.05
#: What our own worker runs.
OURS = "import sys; from scrimp.measure.beside import llama_worker, ours; llama_worker.serve(ours, sys.argv[1])"


@dataclass(frozen=True)
class Phase:
    """Tokens per second of both. ``ratio``: the median over rounds of ours by theirs."""

    scrimp: Rate
    peer: Rate
    ratio: float


@dataclass(frozen=True)
class Beside:
    """What ``--beside`` reports; ``to_json()`` is its part of the document."""

    peer: str
    version: str
    features: str  #: how the peer describes its build
    file: str
    threads: int
    prefill: Phase
    decode: Phase

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def check_beside(peer: str, model: str | Path | None, kv: str = "f16") -> Path:
    """The GGUF both will open, before minutes are spent; the peer is looked for and not imported."""
    if peer not in PEERS:
        raise UsageError(f"There is no engine '{peer[:80]}' to measure beside.", hint=f"known: {', '.join(PEERS)}")
    if model is None:
        raise UsageError(f"{peer} needs a file that both can open.", hint="a .gguf in place of --shape")
    if kv != "f16":
        raise UsageError(f"{peer} keeps its keys and values in float16; --kv {kv} would not compare.",
                         hint="leave out --kv")  # fmt: skip
    if find_spec(PEERS[peer]) is None:
        raise ScrimpError(
            f"{peer} is not here: this Python has no module {PEERS[peer]}.",
            hint="CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python",
        )
    return gguf_of(peer, model)


def gguf_of(peer: str, model: str | Path) -> Path:
    """The file of a model, which has to be a GGUF."""
    path = locate(str(model))
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) == GGUF_MAGIC:
                return path
    raise UsageError(f"{peer} opens only GGUF files, and {path} is none.", hint="such as smollm2-135m")


def measure_beside(
    path: Path, *, threads: int, prefill: int, decode: int, rounds: int, peer: str = "llama.cpp",
    python: str = sys.executable, progress: Progress = SILENT,
) -> Beside:  # fmt: skip
    """``rounds`` times ours, then theirs. ``python``: of the environment that has the peer."""
    asked = json.dumps({"path": str(path), "threads": threads, "prefill": prefill, "decode": decode})
    taken: dict[str, list[dict[str, float]]] = {"scrimp": [], peer: []}
    with ExitStack() as stack:
        workers = {
            "scrimp": Worker("scrimp", [sys.executable, "-c", OURS, asked], stack),
            peer: Worker(peer, [python, llama_worker.__file__, asked], stack),
        }
        progress.start(f"beside {peer}", rounds)
        for _ in range(rounds):
            for name, worker in workers.items():
                sleep(PAUSE_S)
                taken[name].append(worker.turn())
            progress.advance()
        progress.finish()

    def phase(name: str) -> Phase:
        mine, theirs = ([turn[name] for turn in taken[who]] for who in ("scrimp", peer))
        return Phase(_rate(mine), _rate(theirs), median(a / b for a, b in zip(mine, theirs, strict=True)))

    facts = workers[peer].facts
    return Beside(peer, str(facts["version"]), str(facts["isa"]), path.name, threads, phase("prefill"), phase("decode"))


def ours(path: str, threads: int, prefill: int, decode: int) -> tuple[llama_worker.Turn, dict[str, Any]]:
    """The model opened by scrimp, for :func:`scrimp.measure.llama_worker.serve`."""
    from scrimp.model import open_model

    model = open_model(path, threads=threads, context=prefill + decode)
    tokens = [llama_worker.token(i, model.vocab_size) for i in range(prefill + decode)]

    def turn() -> dict[str, float]:
        begin = perf_counter()
        model.step(tokens[:prefill], 0)
        middle = perf_counter()
        for position in range(prefill, prefill + decode):
            model.step(tokens[position : position + 1], position)
        return {"prefill": prefill / (middle - begin), "decode": decode / (perf_counter() - middle)}

    return turn, {"isa": model.isa}


class Worker:
    """An engine in a process of its own, warm, until the stack unwinds."""

    def __init__(self, name: str, command: list[str], stack: ExitStack) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        stack.callback(self._close)
        self.facts = self._answer()

    def turn(self) -> dict[str, float]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # where it ended, the answer says how
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ScrimpError(f"The process of {self.name} ended with {self._process.wait()} and no answer.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ScrimpError(f"{self.name} could not take its turn: {answer['error']}")
        return answer

    def _close(self) -> None:
        self._process.kill()  # it has nothing to save
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _rate(rates: list[float]) -> Rate:
    return Rate(median(rates), min(rates), max(rates), len(rates))
