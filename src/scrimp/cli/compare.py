"""``scrimp compare``: one table of bytes, loss and speed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrimp.cli.run import Kv

if TYPE_CHECKING:
    from scrimp.measure.compare import Row


def compare(
    models: Annotated[
        list[str] | None, typer.Argument(help="paths, catalogue names or hub ids", metavar="MODEL...")
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option(help="instead of MODELs: a TOML of formats × methods to compress one model in")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="the MODEL they were made from; run in float32")] = None,
    text: Annotated[Path | None, typer.Option(help="UTF-8 text; without it, the one that ships with scrimp")] = None,
    context: Annotated[int | None, typer.Option(help="tokens in a window, 512 unless given")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="tokens in all windows together, at most")] = None,
    prefill: Annotated[int, typer.Option(help="tokens of the prompt that is timed")] = 256,
    decode: Annotated[int, typer.Option(help="tokens decoded one by one after it")] = 64,
    threads: Annotated[int | None, typer.Option(min=1, help="one per core unless given")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="turns each model takes in front of the clock")] = 5,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="an HTML page with the charts; of a sweep also a directory")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="of a sweep: so many processes, or the address of a Ray cluster")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="don't continue an interrupted sweep")] = False,
    node: Annotated[str, typer.Option(help="of the modelled energy: 45nm or 7nm")] = "45nm",
    kv: Kv = "f16",
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> int:
    """Measure models side by side: the same text, the same run. Or, with --sweep, every way to compress one."""
    from scrimp.cli import bar, output
    from scrimp.engine.cache import check_kv
    from scrimp.errors import UsageError
    from scrimp.measure import compare as measure

    if sweep is not None:
        if models:
            raise UsageError("A sweep names its model itself.", hint="leave the MODELs out, or --sweep")
        if (prefill, decode, rounds, node, kv) != (256, 64, 5, "45nm", "f16"):
            raise UsageError("A sweep times nothing: --prefill, --decode, --rounds, --node and --kv have no place.",
                             hint="leave them out, or name MODELs")  # fmt: skip
        from scrimp.cli.compare_sweep import run_sweep

        return run_sweep(sweep, reference=reference, text=text, context=context, max_tokens=max_tokens,
                         threads=threads, out=out, workers=workers, fresh=fresh, json=json)  # fmt: skip
    if not models:
        raise UsageError("There is no model to measure.", hint="name some, or a --sweep of one")
    if workers is not None or fresh:
        raise UsageError("--workers and --fresh belong to a --sweep.", hint="leave them out")
    if out is not None:
        output.check_place(out, "compare.html")
    rows = measure.compare(
        models, text, reference=reference, context=512 if context is None else context, max_tokens=max_tokens,
        prefill=prefill, decode=decode, threads=threads, rounds=rounds, node=node, kv=check_kv(kv),
        progress=bar.progress(),
    )  # fmt: skip
    if out is not None:
        from scrimp.measure.compare_page import page
        from scrimp.store.partial import write_durably

        write_durably(out, page(rows, COLUMNS, [cells(row) for row in rows]))
        output.note(f"written: {out}")
    if json:
        output.print_json({"rows": [row.to_json() for row in rows]})
    else:
        _print(rows)
    return output.verdict([row.model for row in rows if row.evaluation.perplexity.broken])


def _print(rows: list[Row]) -> None:
    from scrimp.cli import output

    output.print_table(COLUMNS, [cells(row) for row in rows])
    output.notes([f"{row.model}: {line}" for row in rows for line in row.evaluation.notes])
    ceiling = max(row.speed.memory_read_gb_per_s for row in rows)
    speed = rows[0].speed
    output.note(
        f"{rows[0].evaluation.protocol}. KL and same top token: against the reference in float32. Prefill of "
        f"{speed.prefill} and decode of {speed.decode} tokens, medians of {speed.decode_tokens_per_s.n}, "
        f"{speed.threads} threads, {speed.isa}, {speed.kv} cache; memory reads {ceiling:.1f} GB/s. "
        f"mJ/token: modelled, not measured; hardware of {speed.energy.node}, a decoded token's operations and the "
        "bytes it reads."
    )


COLUMNS = (
    "model", "bytes", "bits/weight", "perplexity", "KL mean", "same top", "prefill tok/s", "decode tok/s",
    "peak memory", "mJ/token (modelled)",
)  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table."""
    from scrimp.sizes import format_bytes

    found, apart = row.evaluation.perplexity, row.evaluation.divergence
    error = f" ± {found.ppl_se:.2f}" if found.ppl_se == found.ppl_se else ""
    return (
        row.model,
        f"{row.file_bytes:,}",
        f"{row.bits_per_weight:.2f}",
        "BROKEN" if found.broken else f"{found.ppl:.2f}{error}",
        "" if apart is None else f"{apart.kl_mean:.4f}",
        "" if apart is None else f"{100 * apart.same_top:.1f} %",
        f"{row.speed.prefill_tokens_per_s.median:.0f}",
        f"{row.speed.decode_tokens_per_s.median:.1f}",
        format_bytes(row.speed.rss_peak_bytes),
        f"{row.speed.energy.total_mj:.3g}",
    )
