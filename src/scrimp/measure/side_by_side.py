"""Speed of several models in one run: rounds in which each has its turn, in a process of its own."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from statistics import median
from typing import Any

from scrimp.engine import Kv
from scrimp.errors import ScrimpError
from scrimp.measure.memory import PageFaults
from scrimp.measure.perf_events import add_known
from scrimp.measure.speed import Ceilings, Rate, Speed, measure_speed
from scrimp.progress import SILENT, Progress

#: What the process of a turn runs. (multiprocessing would import the caller's main module again.)
TURN = "from scrimp.measure.side_by_side import answer; answer()"


def measure_side_by_side(
    models: Sequence[str],
    *,
    prefill: int = 256,
    decode: int = 64,
    threads: int | None = None,
    rounds: int = 5,
    node: str = "45nm",
    kv: Kv = "f16",
    progress: Progress = SILENT,
) -> list[Speed]:
    """Models take turns, so that a machine that slows down for a while slows them all; and each turn is a fresh
    process, so that peak memory and load time are a model's own."""
    turns: list[list[Speed]] = [[] for _ in models]
    progress.start("timing", rounds * len(models))
    for _ in range(rounds):
        for model, taken in zip(models, turns, strict=True):
            asked = {"name": model, "prefill": prefill, "decode": decode, "threads": threads, "node": node, "kv": kv}
            taken.append(take_turn(asked))
            progress.advance(note=model)
    progress.finish()
    return [merge(taken) for taken in turns]


def take_turn(arguments: dict[str, Any]) -> Speed:
    """One repeat of :func:`measure_speed` in a fresh process; its errors are raised here."""
    done = subprocess.run(
        [sys.executable, "-c", TURN], input=pickle.dumps(arguments), stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise ScrimpError(
            f"Timing {arguments['name']} ended with {done.returncode}.",
            hint=f"scrimp bench {arguments['name']} may say why",
        )
    result: Speed | ScrimpError = pickle.loads(done.stdout)
    if isinstance(result, ScrimpError):
        raise result
    return result


def answer() -> None:
    """The other side of :func:`take_turn`: arguments on stdin, the result on stdout."""
    try:
        result: Speed | ScrimpError = measure_speed(**pickle.load(sys.stdin.buffer), repeat=1)
    except ScrimpError as error:
        result = error
    sys.stdout.buffer.write(pickle.dumps(result))


def merge(turns: Sequence[Speed]) -> Speed:
    """Several measurements of one model as one: medians, the largest peak, the best memory ceiling, all faults."""
    return replace(
        turns[0],
        prefill_tokens_per_s=_rate([turn.prefill_tokens_per_s for turn in turns]),
        decode_tokens_per_s=_rate([turn.decode_tokens_per_s for turn in turns]),
        ceilings=reduce(Ceilings.better, (turn.ceilings for turn in turns)),
        load_ms=median(turn.load_ms for turn in turns),
        first_token_ms=median(turn.first_token_ms for turn in turns),
        rss_peak_bytes=max(turn.rss_peak_bytes for turn in turns),
        page_faults=sum((turn.page_faults for turn in turns), PageFaults(0, 0)),
        tlb_misses=add_known([turn.tlb_misses for turn in turns]),
    )


def _rate(rates: list[Rate]) -> Rate:
    return Rate(
        median(rate.median for rate in rates),
        min(rate.min for rate in rates),
        max(rate.max for rate in rates),
        sum(rate.n for rate in rates),
    )
