"""``scrimp train``: quantization-aware training of a network of pictures, as a recipe describes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.measure.train_report import TrainReport
    from scrimp.train.qat.course import Epoch
    from scrimp.train.qat.run import Forecast


def train(
    recipe: Annotated[Path, typer.Argument(help="a recipe (recipes/ has some)", metavar="RECIPE.toml")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="the directory to write")] = None,
    data: Annotated[
        Path | None, typer.Option(help="the directory of the data, unless the recipe or $SCRIMP_DATA names it")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be trained, its bytes and time")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="start over where a run was interrupted")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON document instead of words")] = False,
) -> int:
    """Train a low-bit network of pictures and write a store. Resumes by itself after the last whole epoch."""
    from scrimp.cli import bar, output
    from scrimp.errors import UsageError
    from scrimp.train.qat import recipe_file
    from scrimp.train.torch_extra import require_torch

    chosen = recipe_file.read(recipe)
    if out is None and not dry_run:
        raise UsageError("There is no place to write to.", hint="-o OUT names the directory, --dry-run needs none")
    require_torch()
    from scrimp.train.qat import run
    from scrimp.train.qat.checkpoint import checkpoint_of

    job = run.prepare(chosen, data)
    if dry_run or out is None:
        forecast = run.forecast(job)
        if json:
            from dataclasses import asdict

            output.print_json(asdict(forecast))
        else:
            tell_forecast(forecast)
        return 0
    _check_place(out)
    progress = bar.progress()

    def told(count: int, epoch: Epoch) -> None:
        if not isinstance(progress, bar.Bar):
            output.note(line_of(count, chosen.schedule.epochs, epoch))

    try:
        report = run.train(job, out, fresh=fresh, progress=progress, told=told, note=output.note)
    except KeyboardInterrupt:
        progress.finish()
        if checkpoint_of(out).exists():
            output.note(f"interrupted; the same command goes on from {checkpoint_of(out)}")
        raise
    write_page(report, out)
    if json:
        output.print_json(report.to_json())
    else:
        tell(report)
        output.notes(report.notes)
    return 0


def line_of(count: int, epochs: int, epoch: Epoch) -> str:
    """One epoch in words; what is left is reckoned at its pace."""
    from scrimp.sizes import format_seconds

    left = f", {format_seconds(epoch.seconds * (epochs - count))} left" if count < epochs else ""
    return (f"epoch {count}/{epochs}: loss {epoch.loss:.4f}, train {100 * epoch.train_accuracy:.2f} %, "
            f"test {100 * epoch.test_accuracy:.2f} %, {format_seconds(epoch.seconds)}{left}")  # fmt: skip


def tell_forecast(forecast: Forecast) -> None:
    from scrimp.cli import output
    from scrimp.sizes import format_bytes, format_seconds

    output.print_table(("operation", "weights", "bytes"), [(n, f, f"{b:,}") for n, f, b in forecast.operations])
    print(f"\n{forecast.parameters:,} parameters, {format_bytes(forecast.weight_bytes)} of weights, "
          f"{forecast.multiplications:,} multiplications a picture")  # fmt: skip
    whole = format_seconds(forecast.seconds_per_epoch * forecast.epochs)
    print(f"{forecast.train_pictures:,} pictures to train on, {forecast.test_pictures:,} to test; {forecast.epochs} "
          f"epochs of about {format_seconds(forecast.seconds_per_epoch)}: {whole}")  # fmt: skip
    if forecast.refusal:
        output.note(f"note: it will not run in integers: {forecast.refusal}")


def tell(report: TrainReport) -> None:
    """What was reached, and how the weights lie."""
    from scrimp.cli import output
    from scrimp.sizes import format_bytes, format_seconds

    rows = []
    for layer in report.layers:
        used = None if layer.capacity_used is None else 100 * layer.capacity_used
        rows.append(
            (layer.name, layer.format, f"{layer.bytes:,}", _known(layer.entropy_bits, ".3f"), _known(used, ".1f"))
        )
    output.print_table(("operation", "format", "bytes", "entropy", "capacity %"), rows)
    print(f"\ntest accuracy {100 * report.accuracy:.2f} ± {100 * report.accuracy_se:.2f} % "
          f"({report.test_pictures:,} pictures)")  # fmt: skip
    if report.integer is not None:
        print(f"in integers   {100 * report.integer:.2f} % ({report.same:,} of {report.test_pictures:,} answers alike)")
    print(f"weights       {format_bytes(report.weight_bytes)}; files {format_bytes(report.file_bytes)}")
    print(f"trained       {len(report.curve)} epochs in {format_seconds(report.seconds)}")
    print(f"written       {report.out}, with report.html")


def write_page(report: TrainReport, out: Path) -> None:
    """``report.html`` in the store."""
    from scrimp.measure.train_page import page

    (out / "report.html").write_text(page(report), "utf-8")


def _check_place(out: Path) -> None:
    """That a store can be written to ``out``, before hours of work are lost on it."""
    from scrimp.errors import ScrimpError
    from scrimp.store.partial import check_out

    check_out(out)
    if not out.absolute().parent.is_dir():
        raise ScrimpError(f"{out.parent} does not exist, so {out.name} cannot be written there.",
                          hint=f"mkdir -p {out.parent}")  # fmt: skip


def _known(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)
