"""Decode and prefill beside ik_llama.cpp, bitnet.cpp and llama.cpp, turn by turn: the rows of docs/notes/014.

    python bench/beside_peers.py CASE --threads N --rounds R [--work DIR] [--json FILE]
                                 [--ik LLAMA_BENCH] [--bitnet LLAMA_BENCH] [--llama LLAMA_BENCH]

CASE is smollm2-135m (its own Q4_1 file, which all can read), or a shape with random weights, each engine in the type
that suits it best: llama-3.2-1b:int4:g64, bitnet-2b4t:ternary (our head in 8 bits, theirs in Q6_K), and the latter with
all heads in 4 bits, bitnet-2b4t:ternary,int4:g64. A peer whose llama-bench is not given is left out. To
build one, clone ikawrakow/ik_llama.cpp, microsoft/BitNet (with its submodule) or ggml-org/llama.cpp, and there:

    cmake -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build --target llama-bench

A round is a turn of each engine: it runs twice, and what counts is the last. Ours stays in memory and sleeps while
others run; llama-bench opens its file for every turn. Prefill of 256 tokens; decode of 64 from an empty cache, since
that is what every llama-bench can do. The ratio is the median over rounds of ours by theirs.
--json keeps all turns; a second run with the same file adds its rounds, where one may not be long.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

from random_gguf import ENDS, write_random_gguf
from where import here

from scrimp import _core
from scrimp.cli import bar
from scrimp.errors import ScrimpError
from scrimp.measure.beside import PAUSE_S, gguf_of
from scrimp.model import Model, open_model
from scrimp.sources.shapes import SHAPES, open_shape
from scrimp.store.partial import write_durably

#: Tokens per second of each phase, or what one engine took in a turn.
Turn = dict[str, float]
PHASES = ("prefill", "decode")

#: What makes a llama-bench run a second time or warm up with the whole prompt; the last sample counts.
PEERS = {
    "ik_llama.cpp": ("-w", "0", "-r", "2"),
    "bitnet.cpp": ("-r", "1"),  # it always warms up with the whole prompt
    "llama.cpp": ("--no-warmup", "-r", "2"),
}


@dataclass(frozen=True)
class Side:
    """A peer in a case. ``type``: of its random weights, "" for the model's own file."""

    peer: str
    type: str = ""
    flags: tuple[str, ...] = ()
    ends: str = ENDS  #: type of embedding and head


CASES = {
    "smollm2-135m": (Side("ik_llama.cpp"), Side("llama.cpp")),
    "bitnet-2b4t:ternary": (
        Side("ik_llama.cpp", "IQ2_BN", ("-rtr", "1")),
        Side("bitnet.cpp", "I2_S"),
        Side("llama.cpp", "TQ2_0"),
    ),
    "bitnet-2b4t:ternary,int4:g64": (
        Side("ik_llama.cpp", "IQ2_BN", ("-rtr", "1"), "Q4_0"),
        Side("bitnet.cpp", "I2_S", (), "Q4_0"),
        Side("llama.cpp", "TQ2_0", (), "Q4_0"),
    ),
    "llama-3.2-1b:int4:g64": (
        Side("ik_llama.cpp", "IQ4_KS"),
        Side("ik_llama.cpp", "IQ4_KS", ("-rtr", "1")),
        Side("llama.cpp", "Q4_0"),
    ),
}


def label(side: Side) -> str:
    """
    >>> label(Side("ik_llama.cpp", "IQ2_BN", ("-rtr", "1")))
    'ik_llama.cpp IQ2_BN -rtr 1'
    """
    return " ".join(word for word in (side.peer, side.type, *side.flags) if word)


def file_of(case: str, side: Side, work: Path) -> Path:
    """The GGUF of a side, made when it is not there."""
    if not side.type:
        return gguf_of(side.peer, case)
    shape = case.partition(":")[0]
    path = work / f"{shape}-{side.type}{'' if side.ends == ENDS else f'-{side.ends}'}.gguf"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        write_random_gguf(path, SHAPES[shape], side.type, side.ends)
    return path


def open_ours(case: str, threads: int, context: int) -> Model:
    if ":" not in case:
        return open_model(case, threads=threads, context=context)
    return Model(open_shape(case), threads=threads, context=context)


def our_turn(model: Model, prefill: int, decode: int) -> Turn:
    """Both phases twice, the last time counted; decode begins with an empty cache."""
    tokens = [(7919 * i) % model.vocab_size for i in range(max(prefill, decode))]

    def prompt() -> None:
        model.step(tokens[:prefill], 0)

    def singles() -> None:
        for position in range(decode):
            model.step(tokens[position : position + 1], position)

    def rate(count: int, run: Callable[[], None]) -> float:
        run()
        begin = perf_counter()
        run()
        return count / (perf_counter() - begin)

    return {"prefill": rate(prefill, prompt), "decode": rate(decode, singles)}


def their_turn(program: Path, side: Side, file: Path, threads: int, prefill: int, decode: int) -> Turn:
    command = [str(program), "-m", str(file), "-t", str(threads), "-p", str(prefill), "-n", str(decode), "-o", "json",
               *PEERS[side.peer], *side.flags]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ScrimpError(f"llama-bench of {side.peer} ended with {done.returncode}: {done.stderr[-500:]}")
    try:
        return rates(done.stdout)
    except (ValueError, KeyError, TypeError):
        raise ScrimpError(f"{program} printed no results of llama-bench: {done.stdout[:200]!r}") from None


def rates(printed: str) -> Turn:
    """The last sample of each phase in what ``llama-bench -o json`` printed, some with words around it.

    >>> rates('hello\\n[\\n{"n_prompt": 8, "samples_ts": [1, 2]}, {"n_prompt": 0, "samples_ts": [3.5]}]\\nbye')
    {'prefill': 2, 'decode': 3.5}
    """
    tests, _ = json.JSONDecoder().raw_decode(printed, printed.index("[\n"))
    return {"prefill" if test["n_prompt"] else "decode": test["samples_ts"][-1] for test in tests}


def rounds(options: argparse.Namespace, programs: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Each: engine → turn, and what reading memory reached then."""
    sides = [(side, file_of(options.case, side, options.work)) for side in CASES[options.case] if side.peer in programs]
    with closing(open_ours(options.case, options.threads, max(options.prefill, options.decode))) as model:
        our_turn(model, options.prefill, 1)
        progress = bar.progress()
        progress.start("rounds", options.rounds)
        for _ in range(options.rounds):
            turns = {"scrimp": our_turn(model, options.prefill, options.decode)}
            for side, file in sides:
                sleep(PAUSE_S)
                turns[label(side)] = their_turn(
                    programs[side.peer], side, file, options.threads, options.prefill, options.decode
                )
            read = max(_core.read_bandwidth(256 * 10**6, options.threads, 5))
            progress.advance()
            yield {"turns": turns, "memory_read_gb_per_s": read}
        progress.finish()


def table(taken: list[dict[str, Any]]) -> list[str]:
    """Markdown: a line for each engine; median, least and most of the tokens per second, and the ratio."""
    lines = ["| | prefill tok/s | ours by theirs | decode tok/s | ours by theirs |", "|---|---:|---:|---:|---:|"]
    for name in taken[0]["turns"]:
        cells = []
        for phase in PHASES:
            pairs = [(turns["scrimp"][phase], turns[name][phase]) for turns in (one["turns"] for one in taken)]
            theirs = [b for _, b in pairs]
            ratio = f"{median(a / b for a, b in pairs):.2f}" if name != "scrimp" else ""
            cells += [f"{median(theirs):.1f} ({min(theirs):.1f} … {max(theirs):.1f})", ratio]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("peers"), help="GGUFs of random weights are kept here")
    parser.add_argument("--json", type=Path, metavar="FILE")
    for flag in ("--ik", "--bitnet", "--llama"):
        parser.add_argument(flag, type=Path, metavar="LLAMA_BENCH")
    options = parser.parse_args()
    if min(options.threads, options.rounds, options.prefill, options.decode) < 1:
        parser.error("numbers are at least 1")
    for program in (options.ik, options.bitnet, options.llama):
        if program is not None and not (program.is_file() and os.access(program, os.X_OK)):
            parser.error(f"{program} is no program")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no directory for {options.json}")
    given = zip(PEERS, (options.ik, options.bitnet, options.llama), strict=True)
    asked = {"case": options.case, "threads": options.threads, "prefill": options.prefill, "decode": options.decode}
    kept: dict[str, Any] = {"asked": asked, "rounds": []}
    if options.json is not None and options.json.exists():
        try:
            kept = json.loads(options.json.read_text(encoding="utf-8"))
            if kept["asked"] != asked:
                parser.error(f"{options.json} holds rounds of {kept['asked']}")
            table(kept["rounds"])
        except (ValueError, KeyError, TypeError, IndexError):
            parser.error(f"{options.json} is no file of ours, or was cut off")
    kept |= here()
    try:
        for one in rounds(options, {peer: path for peer, path in given if path is not None}):
            kept["rounds"].append(one)
            if options.json is not None:
                write_durably(options.json, json.dumps(kept, indent=1) + "\n")
    except ScrimpError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{options.case}, {options.threads} threads, prefill {options.prefill}, decode {options.decode}, "
          f"medians of {len(kept['rounds'])} rounds\n")  # fmt: skip
    print("\n".join(table(kept["rounds"])))
    read = median(one["memory_read_gb_per_s"] for one in kept["rounds"])
    print(f"\n{kept['processor']}, {kept['isas'][-1]}, reading {read:.1f} GB/s, commit {kept['commit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
