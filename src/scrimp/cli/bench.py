"""``scrimp bench``: speed against the memory ceiling measured in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrimp.cli.run import Kv

if TYPE_CHECKING:
    from scrimp.measure.beside import Beside
    from scrimp.measure.speed import Rate, Speed


def bench(
    model: Annotated[
        str | None, typer.Argument(help="a path, a catalogue name or a hub id", metavar="[MODEL]", show_default=False)
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="instead of a model, a known shape filled with random codes", metavar="NAME:FORMAT[,HEAD]"),
    ] = None,
    prefill: Annotated[int, typer.Option(help="tokens of the prompt")] = 256,
    decode: Annotated[int, typer.Option(help="tokens decoded one by one after it")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="one per core unless given")] = None,
    repeat: Annotated[int, typer.Option(help="how often; the median is reported")] = 5,
    node: Annotated[str, typer.Option(help="of the modelled energy: 45nm or 7nm")] = "45nm",
    profile: Annotated[bool, typer.Option("--profile", help="time and bytes of every sort of operation")] = False,
    sequences: Annotated[
        str | None, typer.Option(help="so many sequences that decode together: 1,2,4,8,16", metavar="N,N,…")
    ] = None,
    beside: Annotated[
        str | None, typer.Option(help="another engine on the same .gguf, turn by turn: llama.cpp", metavar="ENGINE")
    ] = None,
    kv: Kv = "f16",
    out: Annotated[
        Path | None, typer.Option("-o", help="write a page: the roofline with every operation, one HTML file")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """How fast a model reads a prompt and writes tokens, and how near that is to what the memory allows."""
    from scrimp.cli import bar, output
    from scrimp.engine.cache import check_kv
    from scrimp.measure.batch import parse_counts
    from scrimp.measure.beside import check_beside, measure_beside
    from scrimp.measure.speed import measure_speed

    cache = check_kv(kv)
    file = check_beside(beside, model, cache) if beside is not None else None
    if out is not None:
        output.check_place(out, "bench.html")
    speed = measure_speed(
        model, shape=shape, prefill=prefill, decode=decode, threads=threads, repeat=repeat, node=node,
        profile=profile or out is not None,
        kv=cache, sequences=parse_counts(sequences) if sequences is not None else (), progress=bar.progress(),
    )  # fmt: skip
    other = None
    if beside is not None and file is not None:
        other = measure_beside(file, peer=beside, threads=speed.threads, prefill=prefill, decode=decode, rounds=repeat,
                               progress=bar.progress())  # fmt: skip
    if out is not None:
        from scrimp.measure.bench_page import page
        from scrimp.store.partial import write_durably

        write_durably(out, page(speed, lines(speed), profile_lines(speed)))
        output.note(f"written: {out}")
    if json:
        output.print_json(speed.to_json() | ({"beside": other.to_json()} if other is not None else {}))
        return
    output.print_table(("measured", "median", "min … max"), lines(speed), title=speed.model)
    output.notes(speed.notes)
    if other is not None:
        print()
        output.print_table(
            (f"beside {other.peer} {other.version}", "scrimp", other.peer, "ratio"), beside_lines(other, speed)
        )
    if speed.batches:
        print()
        output.print_table(
            ("sequences", "tokens/s", "× the first", "ms per step", "GB/s", "faults"), batch_lines(speed)
        )
    if profile:
        print()
        output.print_table(("operation", "calls", "ms", "%", "MB", "GB/s", "GMAC/s"), profile_lines(speed))


def lines(speed: Speed) -> list[tuple[str, str, str]]:
    """The result as rows: what, value, spread."""
    from scrimp.sizes import format_bytes

    ceilings, outside = speed.ceilings, speed.decode_outside_products
    share = speed.decode_gb_per_s / speed.memory_read_gb_per_s
    rates = (
        (f"prefill of {speed.prefill}", speed.prefill_tokens_per_s),
        (f"decode of {speed.decode}", speed.decode_tokens_per_s),
    )
    return [
        *((name, f"{rate.median:.1f} tokens/s", _spread(rate)) for name, rate in rates),
        ("read per decoded token", format_bytes(speed.bytes_per_token), ""),
        ("decode reads", f"{speed.decode_gb_per_s:.1f} GB/s", f"{100 * share:.0f} % of the memory ceiling"),
        (f"a token of context, {speed.kv} cache", format_bytes(speed.kv_bytes_per_token), ""),
        (
            "memory ceiling",
            f"{ceilings.memory_read_gb_per_s:.1f} GB/s",
            f"cache {ceilings.cache_read_gb_per_s:.0f} GB/s",
        ),
        ("prefill computes", f"{speed.prefill_gmac_per_s:.0f} GMAC/s", _of_peak(speed)),
        *(
            [("decode outside the products", f"{100 * outside:.1f} %", "of its busy time")]
            if outside is not None
            else []
        ),
        ("load", f"{speed.load_ms:.0f} ms", ""),
        ("load and first token", f"{speed.first_token_ms:.0f} ms", ""),
        ("peak memory", format_bytes(speed.rss_peak_bytes), ""),
        ("page faults in decode", f"{speed.page_faults.minor:,} minor", f"{speed.page_faults.major:,} major"),
        ("TLB misses in decode", *_tlb(speed)),
        (
            f"energy per token, modelled ({speed.energy.node})",
            f"{speed.energy.total_mj:.3g} mJ",
            f"{speed.energy.compute_mj:.2g} compute + {speed.energy.memory_mj:.3g} memory, mJ",
        ),
        ("threads, instruction set", f"{speed.threads}, {speed.isa}", ""),
    ]


def beside_lines(beside: Beside, speed: Speed) -> list[tuple[str, ...]]:
    """Both engines, as rows."""
    return [
        (
            name,
            *(f"{rate.median:.1f} tokens/s  ({_spread(rate)})" for rate in (phase.scrimp, phase.peer)),
            f"{phase.ratio:.2f}",
        )
        for name, phase in (
            (f"prefill of {speed.prefill}", beside.prefill),
            (f"decode of {speed.decode}", beside.decode),
        )
    ]


def batch_lines(speed: Speed) -> list[tuple[str, ...]]:
    """What several sequences decode together, as rows."""
    first = speed.batches[0].decode_tokens_per_s.median
    return [
        (
            str(batch.sequences),
            f"{batch.decode_tokens_per_s.median:.1f}  ({_spread(batch.decode_tokens_per_s)})",
            f"{batch.decode_tokens_per_s.median / first:.2f}",
            f"{batch.step_ms:.2f}",
            f"{batch.bytes_per_step / batch.step_ms / 1e6:.1f}",
            f"{batch.page_faults.minor:,} minor, {batch.page_faults.major:,} major",
        )
        for batch in speed.batches
    ]


def profile_lines(speed: Speed) -> list[tuple[str, ...]]:
    """The profile as rows, each phase with its own shares."""
    totals: dict[str, float] = {}
    for cost in speed.profile:
        totals[cost.phase] = totals.get(cost.phase, 0.0) + cost.seconds
    return [
        (
            f"{cost.phase}  {cost.op}",
            f"{cost.calls:,}",
            f"{1000 * cost.seconds:.2f}",
            f"{100 * cost.seconds / totals[cost.phase]:.1f}" if totals[cost.phase] else "",
            f"{cost.bytes / 1e6:.1f}",
            f"{cost.bytes / cost.seconds / 1e9:.1f}" if cost.seconds else "",
            f"{cost.macs / cost.seconds / 1e9:.1f}" if cost.seconds and cost.macs else "",
        )
        for cost in speed.profile
    ]


def _of_peak(speed: Speed) -> str:
    peak = speed.ceilings.int8_gmac_per_s
    return f"{100 * speed.prefill_gmac_per_s / peak:.0f} % of the int8 peak, {peak:.0f} GMAC/s" if peak else ""


def _tlb(speed: Speed) -> tuple[str, str]:
    if speed.tlb_misses is None:
        return "not counted", speed.tlb_not_counted or "the counter had no turn"
    return f"{speed.tlb_misses:,}", f"{speed.tlb_misses / speed.decode / speed.decode_tokens_per_s.n:,.0f} a token"


def _spread(rate: Rate) -> str:
    return f"{rate.min:.1f} … {rate.max:.1f} (n = {rate.n})"
