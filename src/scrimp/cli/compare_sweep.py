"""``scrimp compare --sweep``: one model, many ways to compress it, one table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrimp.sweep.cell import Result
    from scrimp.sweep.file import Sweep
    from scrimp.sweep.run import Told

COLUMNS = ("cell", "bytes", "bits/weight", "KL mean", "same top", "perplexity", "seconds")


def run_sweep(
    file: Path, *, reference: str | None, text: Path | None, context: int | None, max_tokens: int | None,
    threads: int | None, out: Path | None, workers: str | None, fresh: bool, json: bool,
) -> int:  # fmt: skip
    """What ``--sweep`` does; flags win over the file."""
    from scrimp.cli import bar, output
    from scrimp.errors import UsageError
    from scrimp.store.partial import write_durably
    from scrimp.sweep import run as sweeping
    from scrimp.sweep.file import read
    from scrimp.sweep.journal import Journal
    from scrimp.sweep.page import page

    if threads is not None and workers is None:
        raise UsageError("--threads are those of each of the --workers of a sweep.", hint="else SCRIMP_THREADS=1")
    sweep = _with_flags(read(file), reference, text, context, max_tokens)
    html, journal_path, scratch = _places(out)
    if workers is not None:
        from scrimp.sweep.cluster import check

        check(workers)
    sweep = sweeping.checked(sweep)
    with Journal(journal_path, fresh=fresh) as journal:
        try:
            results = sweeping.run(sweep, journal, scratch=scratch, workers=workers, threads=threads,
                                   progress=bar.progress(), tell=_tell)  # fmt: skip
        except KeyboardInterrupt:
            if journal_path is not None:
                output.note(f"interrupted; {journal_path} keeps what was found: the same command continues there")
            raise
    if scratch is not None and scratch.is_dir() and not any(scratch.iterdir()):
        scratch.rmdir()
    lines = [cells(result) for result in results]
    if html is not None:
        write_durably(html, page(results, sweep.setting, COLUMNS, lines))
        output.note(f"written: {html}")
    if json:
        output.print_json({"rows": [result.to_json() for result in results]})
    else:
        output.print_table(COLUMNS, lines)
        _explain(results)
    return _verdict(results)


def _verdict(results: list[Result]) -> int:
    """The exit code: 4 where a cell was not made, or is BROKEN; both are told on stderr."""
    from scrimp.cli import output
    from scrimp.errors import GoalNotMet

    failed = [result for result in results if result.error]
    for result in failed:
        output.note(f"not made: {result.name}: {result.error}")
    code = output.verdict([result.name for result in results if result.loss is not None and result.loss.broken])
    return GoalNotMet.exit_code if failed else code


def cells(result: Result) -> tuple[str, ...]:
    """One line of the table."""
    loss = result.loss
    name = result.name + (" (original inputs)" if result.prefix == "original" else "")
    if loss is None:
        return (name, "", "", "", "", "not made", f"{result.seconds:.1f}")
    error = f" ± {loss.ppl_se:.2f}" if loss.ppl_se == loss.ppl_se else ""
    return (
        name,
        f"{result.file_bytes:,}",
        f"{result.bits_per_weight:.2f}",
        f"{loss.kl_mean:.4f}",
        f"{100 * loss.same_top:.1f} %",
        "BROKEN" if loss.broken else f"{loss.ppl:.2f}{error}",
        f"{result.seconds:.1f}",
    )


def _with_flags(
    sweep: Sweep, reference: str | None, text: Path | None, context: int | None, max_tokens: int | None
) -> Sweep:
    from scrimp.measure.windows import read_text

    setting = sweep.setting
    return replace(sweep, setting=replace(
        setting,
        reference=setting.reference if reference is None else reference,
        text=setting.text if text is None else read_text(text),
        context=setting.context if context is None else context,
        max_tokens=setting.max_tokens if max_tokens is None else max_tokens,
    ))  # fmt: skip


def _places(out: Path | None) -> tuple[Path | None, Path | None, Path | None]:
    """The page, the journal and the room of unfinished cells."""
    from scrimp.cli import output
    from scrimp.errors import UsageError

    if out is None:
        output.note("note: without -o nothing is remembered, and an interrupted sweep begins again")
        return None, None, None
    if out.suffix == ".html":
        output.check_place(out, "compare.html")
        return out, out.with_suffix(".jsonl"), None
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file.", hint=f"name a directory, or a page: -o {out}.html")
    if out.is_dir():
        output.check_place(out / "compare.html", "sweep.html")
    return out / "compare.html", out / "sweep.jsonl", out / "unfinished"


def _tell(told: Told) -> None:
    """A line for every finished cell, on stderr."""
    from scrimp.cli import output
    from scrimp.sizes import format_seconds

    result, left = told.result, told.seconds_left
    what = "not made" if result.loss is None else f"KL {result.loss.kl_mean:.4f}, {result.file_bytes:,} bytes"
    rest = f"; about {format_seconds(left)} left" if left == left and told.done < told.cells else ""
    output.note(f"{told.done}/{told.cells}  {result.name}: {what}, {format_seconds(result.seconds)}{rest}")
    sys.stderr.flush()


def _explain(results: list[Result]) -> None:
    from scrimp.cli import output

    measured = next((result.loss for result in results if result.loss is not None), None)
    if measured is not None:
        output.note(f"{measured.protocol}. KL and same top token: against the reference in float32. Seconds: to plan, "
                    "calibrate and compress.")  # fmt: skip
    prefixes = {result.prefix for result in results if result.prefix}
    if "original" in prefixes:
        output.note("original inputs: calibrated on the original network's states; blocks never saw what the ones "
                    "before them lose")  # fmt: skip
    if "joint" in prefixes:
        output.note("joint inputs: weights make up for what the compressed blocks before them lose")
    if prefixes == {"quantized"}:
        output.note("Methods that calibrate read what the compressed blocks before them give.")
