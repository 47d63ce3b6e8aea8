"""``scrimp compress``: make a model smaller and measure the loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrimp.quantize.methods import METHODS_HELP

if TYPE_CHECKING:
    from scrimp.quantize.job import Job
    from scrimp.quantize.plan import Plan
    from scrimp.quantize.predict import Prediction
    from scrimp.quantize.report import CompressReport

#: Tokens that the loss is measured on unless more are asked for: a minute at most, and an error bar beside it.
DEFAULT_TOKENS = 4096


def compress(
    model: Annotated[str, typer.Argument(help="a path, a catalogue name or a hub id", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="the directory to write")] = None,
    format: Annotated[str | None, typer.Option(help="of the body's matrices, like int4:g64 or ternary")] = None,
    bits: Annotated[float | None, typer.Option(min=0, help="per weight, everything included")] = None,
    size: Annotated[str | None, typer.Option(help="of all files together, like 60MB")] = None,
    kl: Annotated[float | None, typer.Option(min=0, help="largest loss in nats: the smallest plan within it")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="repack a quantized source without loss")] = False,
    method: Annotated[str, typer.Option(help=METHODS_HELP)] = "rtn",
    calibrate: Annotated[
        Path | None, typer.Option(help="UTF-8 text for methods that calibrate; one ships with scrimp")
    ] = None,
    calibrate_windows: Annotated[
        int | None, typer.Option(min=1, help="windows of that text to run, 128 unless given")
    ] = None,
    calibrate_prefix: Annotated[
        str, typer.Option(help="what is before a block meanwhile: quantized, original, or joint, which corrects for it")
    ] = "joint",
    embedding: Annotated[str | None, typer.Option(help="format of embedding and head")] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="GLOB=FORMAT[@METHOD]; repeatable, the last match wins")
    ] = None,
    pack: Annotated[bool, typer.Option("--pack", help="store codes under an entropy coder, decoded at load")] = False,
    activations: Annotated[
        str, typer.Option(help="dynamic, or static[:absmax|percentile|mse]: fixed scales, found by a calibration")
    ] = "dynamic",
    text: Annotated[Path | None, typer.Option(help="UTF-8 text to measure the loss on; one ships with scrimp")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens of the text to measure on")] = DEFAULT_TOKENS,
    no_loss: Annotated[bool, typer.Option("--no-loss", help="don't measure the loss")] = False,
    recover: Annotated[
        bool, typer.Option("--recover", help="then train as `scrimp recover` does; needs torch")
    ] = False,
    recover_minutes: Annotated[float, typer.Option(min=0, help="of that training")] = 60.0,
    tokenizer: Annotated[Path | None, typer.Option(help="the tok*.bin of a llama2.c model")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what it would take")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="don't continue an interrupted attempt")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> int:
    """Make a model smaller; says size, time and memory first, then the loss it measured. Resumes by itself."""
    from scrimp.calibrate.windows import as_prefix
    from scrimp.cli import bar, output
    from scrimp.cli.recover import check_job, check_recovery, recovered
    from scrimp.errors import UsageError
    from scrimp.measure.windows import read_text
    from scrimp.models import encodes
    from scrimp.quantize.compress import check_loss, measure_loss, run
    from scrimp.quantize.correct import within_goal
    from scrimp.quantize.job import prepare
    from scrimp.quantize.wish import Wish
    from scrimp.store.partial import check_out, partial_of

    if out is None and not dry_run:
        raise UsageError("There is no directory to write to.", hint="name one with -o")
    if recover:
        check_recovery(recover_minutes)
    if text is not None:
        read_text(text)  # a text that cannot be read is better known now
    if out is not None:
        check_out(out)
    progress = bar.progress()
    wish = Wish(format=format, bits=bits, size=size, kl=kl, keep=keep, method=method, rules=rule or (),
                embedding=embedding, tokenizer=tokenizer, calibrate=calibrate,
                calibrate_windows=calibrate_windows, calibrate_prefix=as_prefix(calibrate_prefix),
                pack=pack, recover=recover, activations=activations)  # fmt: skip
    job = prepare(model, wish, progress=progress)
    with job.source:
        if recover:
            check_job(job)
        prediction = job.predict()
        if not json:
            _announce(job, prediction)
        if dry_run or out is None:
            if json:
                output.print_json(_planned(job, prediction))
            return 0
        measure = not no_loss and job.source.tokenizer.kind != "none"
        if measure and encodes(job.source.config):
            output.note("no loss is measured: an encoder writes no text")
            measure = False
        if measure:
            check_loss(job, text, max_tokens=max_tokens)
        try:
            report = run(job, out, progress=progress, fresh=fresh)
            job, report = within_goal(model, wish, job, report, progress=progress)
        except KeyboardInterrupt:
            progress.finish()
            output.note(f"interrupted; what was finished waits in {partial_of(out)}: the same command continues there")
            raise
        if recover:
            report = recovered(job, report, recover_minutes, calibrate, progress, fresh=fresh)
        if not json:
            tell(report)
            output.notes(report.notes[len(job.notes) :])
        if measure:
            report = measure_loss(job, report, text, max_tokens=max_tokens, progress=progress)
        if json:
            output.print_json(report.to_json())
        elif report.loss is not None:
            tell_loss(report)
    if report.loss is None or not report.loss.perplexity.broken:
        return 0
    output.note("BROKEN: word counts alone predict this text better. Use more bits, or another method.")
    return 4


def _announce(job: Job, prediction: Prediction) -> None:
    """Size, time and memory, before anything is written."""
    from scrimp.cli import output
    from scrimp.sizes import format_bytes, format_seconds

    before = job.source.file_bytes
    output.print_table(
        ("planned", "value"),
        [
            (
                "size, at most" if job.packed and job.expected_bytes is None else "size",
                f"{format_bytes(before)} → {format_bytes(prediction.file_bytes)}",
            ),
            ("bits per weight", f"{8 * before / job.plan.parameters:.2f} → {prediction.bits_per_weight:.2f}"),
            ("time, about", format_seconds(prediction.seconds)),
            ("memory, about", format_bytes(prediction.memory_bytes)),
            *_choices(job.plan),
        ],
    )
    output.notes(job.notes)


def _choices(plan: Plan) -> list[tuple[str, str]]:
    """A line per format and method; rates, which each matrix has its own of, as a range."""
    from collections import defaultdict

    from scrimp.quantize.methods import method
    from scrimp.quantize.plan import KEEP

    found: dict[str, list[float | None]] = defaultdict(list)
    for choice in plan.choices.values():
        bits = None if choice.method == KEEP else method(choice.method).coded_bits
        found[str(choice) if bits is None else str(choice).replace(f":{bits:g}", "", 1)].append(bits)
    rows = []
    for name, rates in found.items():
        known = [rate for rate in rates if rate is not None]
        at = f", {min(known):g} … {max(known):g} bits a weight" if known else ""
        rows.append((f"  {name}", f"{len(rates)} matrices{at}"))
    return rows


def _planned(job: Job, prediction: Prediction) -> dict[str, object]:
    tensors = [{"name": n, "format": c.format.name, "method": c.method} for n, c in job.plan.choices.items()]
    return {"out": None, "dry_run": True, **prediction.to_json(), "notes": list(job.notes), "tensors": tensors}


def tell(report: CompressReport) -> None:
    from scrimp.cli import output
    from scrimp.sizes import format_bytes, format_seconds

    rows = [
        ("size", f"{format_bytes(report.file_bytes)} ({report.file_bytes:,} bytes)"),
        ("bits per weight", f"{report.bits_per_weight:.3f}"),
        ("time", format_seconds(report.seconds)),
        ("peak memory", format_bytes(report.rss_peak_bytes)),
    ]
    changed = [tensor for tensor in report.tensors if tensor.error > 0]
    if changed:
        worst = max(changed, key=lambda tensor: tensor.error)
        rows.append(("relative error, median", f"{sorted(t.error for t in changed)[len(changed) // 2]:.4f}"))
        rows.append(("relative error, worst", f"{worst.error:.4f} ({worst.name})"))
    outputs = sorted((tensor.output_error, tensor.name) for tensor in changed if tensor.output_error is not None)
    if outputs:
        rows.append(("output error, median", f"{outputs[len(outputs) // 2][0]:.4f}"))
        rows.append(("output error, worst", f"{outputs[-1][0]:.4f} ({outputs[-1][1]})"))
    if report.resumed:
        rows.append(("resumed", f"{report.resumed} tensors were finished before"))
    print()
    output.print_table(("written", report.out), rows)


def tell_loss(report: CompressReport) -> None:
    from scrimp.cli import output
    from scrimp.cli.eval import lines

    assert report.loss is not None
    print()
    output.print_table(("loss", "value", "± error"), lines(report.loss))
    output.note(f"protocol: {report.loss.protocol}")
