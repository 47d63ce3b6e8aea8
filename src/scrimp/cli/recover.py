"""``scrimp recover``: train what costs no bytes in a compressed model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.progress import Progress
    from scrimp.quantize.job import Job
    from scrimp.quantize.report import CompressReport, Recovery

#: Tokens that the loss is measured on unless more are asked for.
DEFAULT_TOKENS = 4096


def recover(
    directory: Annotated[Path, typer.Argument(help="a compressed model", metavar="DIR")],
    out: Annotated[Path, typer.Option("-o", "--out", help="the directory to write; may be DIR")],
    reference: Annotated[
        str | None, typer.Option(help="the MODEL it was made from; looked for by its name unless given")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="in all, but for measuring the loss at the end")] = 60.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="instead of minutes: the same steps, the same result")
    ] = None,
    codes: Annotated[bool, typer.Option("--codes", help="learn the codes too, not only scales, mins, norms")] = False,
    ends: Annotated[bool, typer.Option("--ends", help="learn embedding and head too")] = False,
    block_steps: Annotated[int, typer.Option(min=0, help="steps for each block by itself, before all together")] = 0,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="UTF-8 text to learn from; without, one that ships with scrimp and what the original writes"),
    ] = None,
    write: Annotated[
        int | None, typer.Option(min=0, help="windows of text that the original writes to learn from")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the order of the windows")] = 0,
    text: Annotated[Path | None, typer.Option(help="UTF-8 text to measure the loss on; one ships with scrimp")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens of the text to measure on")] = DEFAULT_TOKENS,
    no_loss: Annotated[bool, typer.Option("--no-loss", help="don't measure the loss")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="don't continue an interrupted attempt")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> int:
    """Bring a compressed model nearer to its original at the same size. Needs torch: pip install 'scrimp[train]'.

    Scales, mins and norms (with --codes the codes too) learn from the original's next-token probabilities. What helps
    on held-out windows is kept; if nothing does, the model stays as it was. Resumes by itself.
    """
    from scrimp.cli import bar, output
    from scrimp.cli.compress import tell, tell_loss
    from scrimp.measure.windows import read_text
    from scrimp.train.torch_extra import require_torch

    require_torch()
    from scrimp.train import recover as training
    from scrimp.train.checkpoint import checkpoint_of
    from scrimp.train.settings import Settings

    for given in (text, calibrate):
        if given is not None:
            read_text(given)  # a text that cannot be read is better known now
    settings = Settings(
        minutes=minutes, steps=steps, codes=codes, ends=ends, written=write, block_steps=block_steps, seed=seed
    )
    progress = bar.progress()
    try:
        report = training.recover(
            directory, out, settings, reference=reference, calibrate=calibrate, text=text, max_tokens=max_tokens,
            measure=not no_loss, fresh=fresh, progress=progress,
        )  # fmt: skip
    except KeyboardInterrupt:
        progress.finish()
        if checkpoint_of(out).exists():
            output.note(f"interrupted; the same command goes on from {checkpoint_of(out)}")
        raise
    if json:
        output.print_json(report.to_json())
    else:
        tell(report)
        if report.recovery is not None:
            tell_recovery(report.recovery)
        output.notes(report.notes)
        if report.loss is not None:
            tell_loss(report)
    if report.loss is None or not report.loss.perplexity.broken:
        return 0
    output.note("BROKEN: word counts alone predict this text better. Use more bits, or a longer recovery.")
    return 4


def tell_recovery(recovery: Recovery) -> None:
    """The curve on held-out windows, about ten rows of it."""
    from scrimp.cli import output
    from scrimp.sizes import format_seconds

    every = -(-len(recovery.curve) // 10)
    shown = [*recovery.curve[:-1:every], recovery.curve[-1]]
    print()
    output.print_table(
        ("step", "time", "held-out KL"), [(f"{s:,}", format_seconds(t), f"{kl:.4f}") for s, t, kl in shown]
    )


def check_recovery(minutes: float) -> None:
    """What `compress --recover` needs, asked before the work: torch, and a time that is one."""
    from scrimp.train.torch_extra import require_torch

    require_torch()
    from scrimp.train.settings import Settings

    Settings(minutes=minutes)


def check_job(job: Job) -> None:
    """UsageError, before the work and not after it, where its store is none that a recovery learns with."""
    from scrimp.errors import UsageError

    if job.ranges is not None:
        raise UsageError("--recover does not learn with fixed ranges of activations.",
                         hint="leave it out, or choose --activations dynamic")  # fmt: skip
    if job.source.tokenizer.kind == "none":
        raise UsageError("--recover runs text through the model, which has no tokenizer.",
                         hint="--tokenizer names one for llama2.c files")  # fmt: skip


def recovered(
    job: Job, report: CompressReport, minutes: float, calibrate: Path | None, progress: Progress, *, fresh: bool
) -> CompressReport:
    """The directory that was just written, trained in place."""
    from dataclasses import replace

    from scrimp.cli import output
    from scrimp.train import recover as training
    from scrimp.train.settings import Settings

    out = Path(report.out)
    try:
        with training.open_small(out) as small:
            found = training.recover_store(
                small, job.source, out, Settings(minutes=minutes), calibrate=calibrate, fresh=fresh, progress=progress
            )
    except KeyboardInterrupt:
        progress.finish()
        output.note(f"interrupted; {out} is complete, and `scrimp recover {out} -o {out}` trains on")
        raise
    return replace(found, seconds=report.seconds + found.seconds, resumed=report.resumed)
