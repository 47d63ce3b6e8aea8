"""Speed of one model, against the memory ceiling measured in the same run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scrimp.engine import Kv
from scrimp.errors import UsageError
from scrimp.formats.cost_energy import check_node
from scrimp.measure.energy import TokenEnergy, energy_of
from scrimp.measure.memory import PageFaults, page_faults, peak_bytes
from scrimp.measure.perf_events import DATA_TLB_MISSES, Counter, add_known, between
from scrimp.measure.traffic import OpCost, Traffic, op_costs
from scrimp.progress import SILENT, Progress
from scrimp.sources.shapes import open_shape
from scrimp.sources.source import Source

if TYPE_CHECKING:
    from scrimp.measure.batch import BatchSpeed
    from scrimp.model import Model

#: Bytes streamed to find the memory ceiling: far more than any cache holds; and of a thread's own cache.
CEILING_BYTES, CACHE_BYTES = 256 * 10**6, 1 << 18


@dataclass(frozen=True)
class Rate:
    """Tokens per second over ``n`` repeats."""

    median: float
    min: float
    max: float
    n: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ceilings:
    """What the same threads reach in the same run with nothing else to do. Reading: the better of two medians, before
    and after. A peak: the best of all, since nothing but a busy machine moves it; it counts multiply-adds in registers,
    None where the instruction set has no such kernel; that of bf16 also where nothing is multiplied in it. G = 10^9."""

    memory_read_gb_per_s: float
    cache_read_gb_per_s: float
    int8_gmac_per_s: float | None
    f32_gmac_per_s: float | None
    bf16_gmac_per_s: float | None = None

    def better(self, other: Ceilings) -> Ceilings:
        def more(a: float | None, b: float | None) -> float | None:
            return None if a is None or b is None else max(a, b)

        return Ceilings(
            max(self.memory_read_gb_per_s, other.memory_read_gb_per_s),
            max(self.cache_read_gb_per_s, other.cache_read_gb_per_s),
            more(self.int8_gmac_per_s, other.int8_gmac_per_s),
            more(self.f32_gmac_per_s, other.f32_gmac_per_s),
            more(self.bf16_gmac_per_s, other.bf16_gmac_per_s),
        )


@dataclass(frozen=True)
class Speed:
    """What ``scrimp bench`` reports. ``to_json()`` has the keys of CLI.md.

    ``first_token_ms``: from the begin of opening the model until the logits after the prompt are there; everything is
    cold but the file, which the operating system may still hold in memory. ``rss_peak_bytes``: of this process, right
    after a whole prefill and decode. Page faults: during all repeats of decode together. ``energy``: modelled, never
    measured, of the token in the middle of decode; the bytes are those stored.
    """

    model: str
    prefill: int
    decode: int
    prefill_tokens_per_s: Rate
    decode_tokens_per_s: Rate
    bytes_per_token: int
    prefill_macs: int  #: multiply-adds of its products, attention not counted
    ceilings: Ceilings
    load_ms: float
    first_token_ms: float
    rss_peak_bytes: int
    page_faults: PageFaults
    threads: int
    isa: str
    energy: TokenEnergy
    kv: Kv = "f16"
    kv_bytes_per_token: int = 0
    profile: tuple[OpCost, ...] = ()
    notes: tuple[str, ...] = ()  #: what was decoded to run
    batches: tuple[BatchSpeed, ...] = ()
    tlb_misses: int | None = None  #: of the data TLB, during all repeats of decode together
    tlb_not_counted: str = ""  #: where that is None, why

    @property
    def decode_gb_per_s(self) -> float:
        return self.bytes_per_token * self.decode_tokens_per_s.median / 1e9

    @property
    def memory_read_gb_per_s(self) -> float:
        return self.ceilings.memory_read_gb_per_s

    @property
    def prefill_gmac_per_s(self) -> float:
        return self.prefill_macs / self.prefill * self.prefill_tokens_per_s.median / 1e9

    @property
    def decode_outside_products(self) -> float | None:
        """The share of a decode step that is not spent in matrix products; needs a profile."""
        steps = [cost for cost in self.profile if cost.phase == "decode"]
        inside = sum(cost.seconds for cost in steps if cost.op.startswith("linear"))
        return 1 - inside / sum(cost.seconds for cost in steps) if steps else None

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        faults, profile, ceilings = (document.pop(key) for key in ("page_faults", "profile", "ceilings"))
        document |= ceilings
        del document["energy"], document["batches"]
        return document | {
            "sequences": [batch.to_json() for batch in self.batches],
            "decode_gb_per_s": self.decode_gb_per_s,
            "prefill_gmac_per_s": self.prefill_gmac_per_s,
            "decode_outside_products": self.decode_outside_products,
            "page_faults_minor": faults["minor"],
            "page_faults_major": faults["major"],
            "energy_modelled": self.energy.to_json(),
            "profile": list(profile),
            "notes": list(self.notes),
        }


def measure_speed(
    name: str | Path | None = None,
    *,
    shape: str | None = None,
    prefill: int = 256,
    decode: int = 64,
    threads: int | None = None,
    repeat: int = 5,
    node: str = "45nm",
    kv: Kv = "f16",
    profile: bool = False,
    sequences: tuple[int, ...] = (),
    progress: Progress = SILENT,
) -> Speed:
    """Open a model, run a prompt of ``prefill`` tokens and then ``decode`` tokens one by one, ``repeat`` times.

    Instead of a model, ``shape`` names one of ``sources/shapes.py``; its random codes are made before the clock starts.
    Tokens are fixed ones: what is timed is the network, without tokenizer and sampling. The first, cold pass is not
    among the repeats. ``sequences``: how many decode together, each number measured beside the others.
    """
    from scrimp.measure.batch import batch_speeds

    for flag, value in (("--prefill", prefill), ("--decode", decode), ("--repeat", repeat)):
        if value < 1:
            raise UsageError(f"{flag} is {value}; at least 1 is needed.", hint=f"{flag} 1")
    check_node(node)
    if (name is None) == (shape is None):
        raise UsageError("One thing is measured at a time.", hint="give a MODEL or --shape NAME:FORMAT")
    source = open_shape(shape) if shape is not None else None
    if source is not None:
        for tensor in source.tensors:
            source.read(tensor)
    tlb = Counter(DATA_TLB_MISSES)  # before the threads it shall count
    begin = perf_counter()
    with closing(tlb), _open(name, source, threads=threads, context=prefill + decode, kv=kv,
               sequences=max(sequences, default=0)) as model:  # fmt: skip
        loaded = perf_counter()
        tokens = [(7919 * i) % model.vocab_size for i in range(prefill + decode)]
        model.step(tokens[:prefill], 0)
        first_token = perf_counter()
        _decode(model, tokens, prefill)
        peak = peak_bytes()
        ceilings = measure_ceilings(model.threads, model.isa)
        progress.start("timing", repeat)
        prefill_s, decode_s, faults, misses = [], [], PageFaults(0, 0), list[int | None]()
        for _ in range(repeat):
            prefill_s.append(_prefill(model, tokens, prefill))
            before, counted = page_faults(), tlb.read()
            decode_s.append(_decode(model, tokens, prefill))
            faults += page_faults() - before
            misses.append(between(counted, tlb.read()))
            progress.advance()
        progress.finish()
        ceilings = ceilings.better(measure_ceilings(model.threads, model.isa))
        traffic = Traffic.of(model)
        if "bf16" not in traffic.formats:
            ceilings = replace(ceilings, bf16_gmac_per_s=None)
        return Speed(
            model=str(name if shape is None else shape),
            prefill=prefill,
            decode=decode,
            prefill_tokens_per_s=rate_of(prefill, prefill_s),
            decode_tokens_per_s=rate_of(decode, decode_s),
            bytes_per_token=traffic.bytes_per_token(prefill + decode // 2),
            prefill_macs=sum(traffic.macs_of_prompt(op, prefill) for op in model.program.ops if op.kind == "linear"),
            ceilings=ceilings,
            load_ms=1000 * (loaded - begin),
            first_token_ms=1000 * (first_token - begin),
            rss_peak_bytes=peak,
            page_faults=faults,
            tlb_misses=add_known(misses),
            tlb_not_counted=tlb.why_not,
            threads=model.threads,
            isa=model.isa,
            energy=energy_of(model, prefill + decode // 2, node),
            kv=model.kv,
            kv_bytes_per_token=model.kv_bytes_per_token,
            profile=_profile(model, traffic, tokens, prefill) if profile else (),
            notes=model.notes,
            batches=batch_speeds(
                model, sequences, traffic, prefill=prefill, decode=decode, repeat=repeat, progress=progress
            ) if sequences else (),
        )  # fmt: skip


def _open(name: str | Path | None, source: Source | None, **options: Any) -> Model:
    from scrimp.model import Model, open_model

    return open_model(str(name), **options) if source is None else Model(source, **options)


def _prefill(model: Model, tokens: list[int], prefill: int) -> float:
    begin = perf_counter()
    model.step(tokens[:prefill], 0)
    return perf_counter() - begin


def _decode(model: Model, tokens: list[int], prefill: int) -> float:
    begin = perf_counter()
    for position in range(prefill, len(tokens)):
        model.step(tokens[position : position + 1], position)
    return perf_counter() - begin


def measure_ceilings(threads: int, isa: str) -> Ceilings:
    from scrimp import _core

    def peak(numbers: str) -> float | None:
        return max(_core.peak(numbers, threads, 9, isa), default=None)

    return Ceilings(
        memory_read_gb_per_s=median(_core.read_bandwidth(CEILING_BYTES, threads, 5, isa=isa)),
        cache_read_gb_per_s=median(_core.read_bandwidth(CACHE_BYTES * threads, threads, 5, least=1 << 26, isa=isa)),
        int8_gmac_per_s=peak("int8"),
        f32_gmac_per_s=peak("f32"),
        bf16_gmac_per_s=peak("bf16"),
    )


def rate_of(tokens: int, seconds: list[float]) -> Rate:
    """Of so many tokens each time."""
    rates = [tokens / s for s in seconds]
    return Rate(median(rates), min(rates), max(rates), len(rates))


def _profile(model: Model, traffic: Traffic, tokens: list[int], prefill: int) -> tuple[OpCost, ...]:
    costs: list[OpCost] = []
    for phase, run, position, prompt in (
        ("prefill", _prefill, prefill // 2, prefill),
        ("decode", _decode, (prefill + len(tokens)) // 2, None),
    ):
        model.engine.reset_profile()
        run(model, tokens, prefill)
        costs += op_costs(phase, model.engine.profile(), traffic, position, prompt)
    return tuple(costs)
