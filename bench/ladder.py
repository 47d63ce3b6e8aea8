"""The ladder: every rung of the matrix products, checked and then timed, as a share of what the machine can do.

    python bench/ladder.py [--shape 1024x2048] [--formats int4:g64,ternary] [--tokens 1,8,256] [--threads 1,2]
                           [--isas NAME,…] [--arithmetics int8] [--stack MB] [--repeat 7] [--best] [--json FILE]

A rung is an instruction set and an arithmetic: weights decoded to float32 and multiplied there, int8 activations and
int8 dot products, or both in bf16, as its weights are. Each runs in the engine, by itself: the product alone, its
activations rounded as always. Copies of one matrix stand behind each other until they are larger than the caches
(--stack), so that every product reads its weights from memory, as a network does.

**Checked**: against exact arithmetic, from the stored codes and from activations quantized in NumPy, within the bound
of tests/core/product_oracle.py; other copies must give the same bits. Of many tokens some thirty are looked at, at
every place of a block. What fails is not timed.

**Timed**: rungs take turns, medians. 100 % is the time that the product needs at the ceilings of the same run and
threads: its bytes at the speed of plain reading, or its multiply-adds at the peak of the best arithmetic (int8; of
weights stored as floats bf16 or float32), whichever takes longer. What is
read is such copies too, in the same turns: some memory is slower than other, and the neighbours of a virtual machine
read as well.
Slow rungs are timed on fewer copies and, past --budget seconds, less often, or only while they are checked; JSON has
the counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import gcd, prod
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from where import here

from scrimp import _core
from scrimp.cli import bar, output
from scrimp.engine import Engine, pick_isa
from scrimp.engine.machine import default_threads
from scrimp.errors import UsageError
from scrimp.formats import Format, parse
from scrimp.formats.catalogue import ELEMENTS
from scrimp.measure.speed import Ceilings, measure_ceilings
from scrimp.program import Program
from scrimp.sources.shapes import random_tensor
from scrimp.tensors import F32, QTensor, from_floats, part_shapes

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "core"))
from product_oracle import exact_and_bound, exact_and_bound_in_bf16, gamma

F64 = NDArray[np.float64]

#: How a rung multiplies, in the order of the ladder.
How = Literal["f32", "int8", "bf16"]
ARITHMETICS: tuple[How, ...] = ("f32", "int8", "bf16")
#: Copies of the matrix that one turn takes are as many as fit into so many seconds.
TURN_S = 0.02
#: The instruction set that multiplies bf16.
BF16_ISA = "avx512_bf16"
#: Inputs with an activation scale of their own.
BLOCK = 32
#: Copies that are checked, and nearly so many tokens: with a step that has no divisor of 12, at every place of a block.
CHECKED_COPIES, CHECKED_TOKENS = 8, 32


@dataclass(frozen=True)
class Rung:
    """One way to multiply, by one number of tokens and threads. ``worst``: its error in units of the bound; above 1 it
    is not timed. ``seconds``: of one product, the median (with --best the least) of ``n``."""

    format: str
    isa: str
    arithmetic: How
    tokens: int
    threads: int
    worst: float
    bytes: int
    macs: int
    seconds: float | None = None
    reading_gb_per_s: float = 0.0  #: of such copies by as many threads, in turns with the product
    n: int = 0
    copies: int = 0  #: of the matrix, in a turn
    share: float | None = None  #: of the ceiling, whichever
    bound_by: str = ""


def formats_that_run() -> list[str]:
    """Every element of the catalogue that the kernels multiply with, the widest first, in its usual blocks."""
    found = [format for format in map(parse, ELEMENTS) if format.runs]
    return [format.name for format in sorted(found, key=lambda f: -f.bits_per_weight(2048, 2048))]


def ways(format: Format, cols: int, isas: Sequence[str], hows: Sequence[How]) -> list[tuple[str, How]]:
    """The rungs of a format. The kernels of avx512_bf16 are those of avx512 but for pairs of weights in bf16.

    >>> ways(parse("int4"), 64, ["avx512", "avx512_bf16"], ARITHMETICS)
    [('avx512', 'f32'), ('avx512', 'int8')]
    >>> ways(parse("bf16"), 64, ["avx512", "avx512_bf16"], ARITHMETICS)
    [('avx512', 'f32'), ('avx512_bf16', 'bf16')]
    >>> ways(parse("bf16"), 65, ["avx512", "avx512_bf16"], ARITHMETICS)
    [('avx512', 'f32')]
    """
    own = "f32" if format.element.kind == "float" else "int8"
    other = [(isa, how) for isa in isas if isa != BF16_ISA for how in hows if how in ("f32", own)]
    bf16 = format == parse("bf16") and cols % 2 == 0 and BF16_ISA in isas and "bf16" in hows
    return [*other, (BF16_ISA, "bf16")] if bf16 else other


def checked(tokens: int) -> list[int]:
    """
    >>> checked(3), len(checked(256)), {token % 12 for token in checked(256)} == set(range(12))
    ([0, 1, 2], 38, True)
    """
    step = max(n for n in range(1, max(2, tokens // CHECKED_TOKENS)) if gcd(n, 12) == 1)
    return sorted({*range(0, tokens, step), tokens - 1})


class Stack:
    """Copies of one matrix of random codes, and the inputs they are multiplied with."""

    def __init__(self, format: Format, shape: tuple[int, int], size_bytes: int, tokens: int) -> None:
        def made() -> QTensor:
            return random_tensor(format, shape, np.random.default_rng(8))

        self.matrix = made()
        copies = [self.matrix, *(made() for _ in range(size_bytes // self.matrix.nbytes))]
        self.names = [f"w{i}" for i in range(len(copies))]
        inputs = np.random.default_rng(9).standard_normal((tokens, shape[1]), np.float32)
        inputs[:, : shape[1] // 3] *= 100  # blocks of different size
        self.inputs: F32 = inputs
        self.matrices = dict(zip(self.names, copies, strict=True))
        self.matrices |= {"x": from_floats(parse("f32"), inputs), "end": from_floats(parse("f32"), inputs[:1])}
        self.program = Program({name: tensor.shape for name, tensor in self.matrices.items()}, {})
        x = self.program.embed("x")
        self.outputs = [self.program.linear(x, name)[0].index for name in self.names]
        self.program.output = self.program.linear(x, "end")[0].index  # never run: taps show all others
        self.stored = [[part.reshape(-1).view(np.uint8) for part in tensor.parts().values()] for tensor in copies]

    def exact(self, tokens: int, arithmetic: How) -> tuple[F64, F64]:
        """What every copy must give for the checked tokens, and how far float32 may be from it, (t, N)."""
        x = self.inputs[checked(tokens)]
        if arithmetic == "int8":
            exact, bound = exact_and_bound(self.matrix, x, BLOCK)
            return exact, bound
        if arithmetic == "bf16":
            exact, bound = exact_and_bound_in_bf16(self.matrix, x)
            return exact, bound
        weights, wide = self.matrix.dequantize().astype(np.float64), x.astype(np.float64)
        return wide @ weights.T, gamma(x.shape[1] + 1) * (np.abs(wide) @ np.abs(weights).T)

    def engine(self, isa: str, arithmetic: How, threads: int) -> Engine:
        tokens = len(self.inputs)
        return Engine(self.program, self.matrices, {}, context=tokens, chunk=tokens, threads=threads, isa=isa,
                      arithmetic="f32" if arithmetic == "f32" else "int8", activation_block=BLOCK)  # fmt: skip


class Turns:
    """One rung's turns: an engine, and which copy comes next; and as many turns of plain reading."""

    def __init__(self, rung: Rung, stack: Stack, engine: Engine, as_checked: float, budget_s: float) -> None:
        self.rung, self.engine, self.ids = rung, engine, np.arange(rung.tokens, dtype=np.int32)
        self.stack, self.copies, self.next = stack, len(stack.names), 0
        self.seconds, self.reading = list[float](), [self.read(0, self.copies)]
        self.count = 1
        if as_checked > budget_s:
            self.seconds.append(as_checked)
            return
        engine.run(self.ids, 0, 0, 1)  # the inputs, which stay where they are
        one = self.take()
        if one >= TURN_S:
            self.seconds.append(one)
            return
        self.count = min(self.copies, int(TURN_S / one))
        self.take()  # warm, and not counted

    def take(self) -> float:
        """Seconds of one product."""
        if self.next + self.count > self.copies:
            self.next = 0
        first = 1 + self.next
        begin = perf_counter()
        self.engine.run(self.ids, 0, first, first + self.count)
        seconds = (perf_counter() - begin) / self.count
        self.reading.append(self.read(self.next + self.copies // 2, self.count))
        self.next += self.count
        return seconds

    def read(self, first: int, count: int) -> float:
        """GB/s of plain reading of so many copies, half the stack away from what was just multiplied."""
        parts = [part for i in range(first, first + count) for part in self.stack.stored[i % self.copies]]
        return _core.read_arrays(parts, self.rung.threads, self.rung.isa)

    def result(self, middle: Callable[[list[float]], float]) -> Rung:
        reading = 1 / middle([1 / rate for rate in self.reading])
        return replace(self.rung, seconds=middle(self.seconds), reading_gb_per_s=reading, n=len(self.seconds),
                       copies=self.count)  # fmt: skip


def worst(engine: Engine, stack: Stack, tokens: int, exact: F64, bound: F64) -> tuple[float, float]:
    """The largest error in units of the bound, infinite when copies of one matrix differ in a bit; and the seconds that
    one product took."""
    ids, some = np.arange(tokens, dtype=np.int32), stack.outputs[: CHECKED_COPIES if tokens == 1 else 1]
    begin = perf_counter()
    first, *others = engine.run(ids, 0, 0, 1 + len(some), outputs=some).values()
    seconds = (perf_counter() - begin) / len(some)
    if not np.isfinite(first).all() or any(not np.array_equal(first, other) for other in others):
        return float("inf"), seconds
    wrong = np.abs(first[checked(tokens)] - exact)
    return float(np.max(np.divide(wrong, bound, out=np.where(wrong > 0, np.inf, 0.0), where=bound > 0))), seconds


def placed(rung: Rung, ceilings: Ceilings) -> Rung:
    """The rung with its share of whichever ceiling is lower for it."""
    if rung.seconds is None:
        return rung
    limits = {"memory": rung.bytes / rung.reading_gb_per_s / 1e9}
    name, peak = peak_of(parse(rung.format), ceilings)
    if peak:
        limits[name] = rung.macs / peak / 1e9
    bound_by = max(limits, key=lambda name: limits[name])
    return replace(rung, share=limits[bound_by] / rung.seconds, bound_by=bound_by)


def peak_of(format: Format, ceilings: Ceilings) -> tuple[str, float | None]:
    """Of the arithmetic that suits the weights best, on this machine."""
    if format.element.kind != "float":
        return "int8 peak", ceilings.int8_gmac_per_s
    if format == parse("bf16") and ceilings.bf16_gmac_per_s:
        return "bf16 peak", ceilings.bf16_gmac_per_s
    return "float32 peak", ceilings.f32_gmac_per_s


def climb(
    stack: Stack, rungs: Sequence[tuple[str, How]], counts: Sequence[int],
    threads: Sequence[int], repeat: int, budget_s: float, middle: Callable[[list[float]], float],
) -> Iterator[Rung]:  # fmt: skip
    """All rungs of a format: those of one number of tokens and threads take turns."""
    rows, cols = stack.matrix.shape
    hows = dict.fromkeys(how for _, how in rungs)
    exact = {(tokens, how): stack.exact(tokens, how) for tokens, how in product(counts, hows)}
    for workers in threads:
        engines = {(isa, how): stack.engine(isa, how, workers) for isa, how in rungs}
        for tokens in counts:
            turns = []
            for (isa, how), engine in engines.items():
                error, as_checked = worst(engine, stack, tokens, *exact[tokens, how])
                rung = Rung(stack.matrix.format.name, isa, how, tokens, workers, error, stack.matrix.nbytes,
                            rows * cols * tokens)  # fmt: skip
                if error <= 1:
                    turns.append(Turns(rung, stack, engine, as_checked, budget_s))
                else:
                    yield rung
            for _ in range(repeat):
                for turn in turns:
                    if not turn.seconds or sum(turn.seconds) * turn.count < budget_s:
                        turn.seconds.append(turn.take())
            yield from (turn.result(middle) for turn in turns)


def table(rungs: Sequence[Rung], counts: Sequence[int], threads: Sequence[int]) -> None:
    """A line per format, instruction set and arithmetic; shares, and how much faster than the first line."""
    columns = list(product(threads, counts))
    found = {(r.format, r.isa, r.arithmetic, r.threads, r.tokens): r for r in rungs}
    lines = []
    for format, isa, how in dict.fromkeys(key[:3] for key in found):
        cells = [found[format, isa, how, workers, tokens] for workers, tokens in columns]
        bottom = [next(r for r in rungs if (r.format, r.threads, r.tokens) == (format, *column)) for column in columns]
        lines.append((f"{format}  {isa} {how}", *map(cell, cells, bottom)))
    heads = [f"{tokens} tok, {workers} thr" if tokens > 1 else f"1 tok, {workers} thr" for workers, tokens in columns]
    output.print_table(("rung", *heads), lines)


def cell(rung: Rung, bottom: Rung) -> str:
    """Share of the ceiling, * where that is reading; and times the lowest rung."""
    if rung.seconds is None or rung.share is None:
        return f"WRONG, {rung.worst:.3g} × the bound"
    times = f"{bottom.seconds / rung.seconds:6.1f}×" if bottom.seconds else ""
    percent = 100 * rung.share
    return f"{percent:.{0 if percent >= 9.5 else 1}f} %{'*' if rung.bound_by == 'memory' else ' '} {times}"


def numbers(words: str) -> list[int]:
    """``1,8,256``, in that order, each at least 1."""
    found = [int(word) for word in words.split(",")]
    if min(found) < 1:
        raise ValueError
    return list(dict.fromkeys(found))


def shape_of(words: str) -> tuple[int, int]:
    rows, cols = (int(word) for word in words.split("x"))
    if min(rows, cols) < 1 or cols > 1 << 16:
        raise ValueError
    return rows, cols


def measure(options: argparse.Namespace) -> int:
    formats = [parse(name) for name in options.formats.split(",")] if options.formats else \
        [parse(name) for name in formats_that_run()]  # fmt: skip
    for format in formats:
        if not format.runs:
            raise UsageError(f"{format.name} is decoded to run.", hint=f"such as {', '.join(formats_that_run())}")
    best = pick_isa()
    available = _core.available_isas()[: _core.available_isas().index(best) + 1]
    asked = available if options.isas is None else options.isas.split(",")
    isas = [isa for isa in available if isa in asked]  # the slowest first
    if not set(asked) <= set(available):
        raise UsageError(f"this machine cannot run '{options.isas}'.", hint=f"it can run {', '.join(available)}")
    arithmetics = [how for how in ARITHMETICS if how in options.arithmetics.split(",")]
    if not set(options.arithmetics.split(",")) <= set(ARITHMETICS):
        raise UsageError(f"'{options.arithmetics}' is no arithmetic.", hint="one or more of f32,int8,bf16")
    for format in formats:
        if not ways(format, options.shape[1], isas, arithmetics):
            raise UsageError(f"{format.name} has no rung there.", hint=f"{BF16_ISA} has one of bf16, and no other")
        if prod(part_shapes(format, options.shape)["codes"]) < 512:  # what _core.read_arrays looks at
            raise UsageError(f"A matrix of {format.name} is too small to be timed.", hint="--shape 64x512")
    ceilings = {workers: measure_ceilings(workers, best) for workers in options.threads}
    rungs: list[Rung] = []
    progress = bar.progress()
    progress.start("climbing", len(formats))
    for format in formats:
        stack = Stack(format, options.shape, options.stack * 10**6, max(options.tokens))
        rungs += climb(stack, ways(format, options.shape[1], isas, arithmetics), options.tokens, options.threads,
                       options.repeat, options.budget, min if options.best else median)  # fmt: skip
        progress.advance(note=format.name)
    progress.finish()
    ceilings = {workers: limit.better(measure_ceilings(workers, best)) for workers, limit in ceilings.items()}
    rungs = [placed(rung, ceilings[rung.threads]) for rung in rungs]
    rows, cols = options.shape
    which = "best" if options.best else "median"
    print(f"{rows} × {cols}, {which} of {options.repeat} interleaved turns; % of the int8 peak (of floats bf16 or "
          "float32), or * of plain reading; × the lowest rung")  # fmt: skip
    table(rungs, options.tokens, options.threads)
    for workers, limit in ceilings.items():
        names = ("int8", limit.int8_gmac_per_s), ("bf16", limit.bf16_gmac_per_s), ("float32", limit.f32_gmac_per_s)
        peaks = "".join(f", {name} peak {peak:.0f} GMAC/s" for name, peak in names if peak)
        print(f"ceilings, {workers} threads, {best}: reading {limit.memory_read_gb_per_s:.1f} GB/s{peaks}")
    wrong = [rung for rung in rungs if rung.seconds is None]
    print(f"{len(rungs)} rungs checked, {len(wrong)} wrong; the largest error is "
          f"{max(rung.worst for rung in rungs):.2g} of its bound")  # fmt: skip
    if options.json is not None:
        document = {"machine": here(), "shape": options.shape, "repeat": options.repeat, "best": options.best,
                    "ceilings": {str(workers): asdict(limit) for workers, limit in ceilings.items()},
                    "rungs": [asdict(rung) for rung in rungs]}  # fmt: skip
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=shape_of, default=(1024, 2048), metavar="ROWSxCOLS")
    parser.add_argument("--formats", help="those of the catalogue unless given", metavar="FORMAT,…")
    parser.add_argument("--tokens", type=numbers, default=[1, 8, 256], metavar="N,…")
    parser.add_argument("--threads", type=numbers, default=sorted({1, default_threads()}), metavar="N,…")
    parser.add_argument("--isas", help="all that this machine has unless given", metavar="NAME,…")
    parser.add_argument("--arithmetics", default=",".join(ARITHMETICS), help="f32, int8, bf16; all unless given")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--stack", type=int, default=96, help="megabytes of copies, more than the caches hold")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds after which a rung is not repeated")
    parser.add_argument("--best", action="store_true", help="the fastest turns, where the machine has other work")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.repeat < 1 or options.stack < 0 or not options.budget >= 0:
        parser.error("--repeat is at least 1, --stack and --budget are not negative")
    if max(options.threads) > 1024:
        parser.error("at most 1,024 threads")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no directory for {options.json}")
    try:
        return measure(options)
    except UsageError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
