"""``scrimp formats``: the number-format laboratory on one's own tensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.measure.format_report import FormatRow, Subject

#: Formats of up to this many levels show all of them.
_LISTED = 32


def formats(
    names: Annotated[list[str] | None, typer.Argument(help="none: the whole catalogue", metavar="FORMAT")] = None,
    on: Annotated[str | None, typer.Option(help="measure on a model's tensors", metavar="MODEL[:TENSOR]")] = None,
    out: Annotated[Path | None, typer.Option("-o", help="write a page: one HTML file that opens offline")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="the tok*.bin of a llama2.c model")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """What each format stores, its bits per value, its error and its cost; of your tensors with --on."""
    from scrimp.cli import bar, output
    from scrimp.formats import parse
    from scrimp.measure import format_report as report
    from scrimp.measure.format_error import DISTRIBUTIONS

    chosen = [parse(name).name for name in names or ()]
    if out is not None:
        output.check_place(out, "formats.html")
    subject = None if on is None else _subject(on, tokenizer)
    detailed = bool(chosen) or out is not None
    found = report.rows(
        chosen or report.catalogue(), tuple(DISTRIBUTIONS) if detailed else ("gaussian",), subject,
        progress=bar.progress(),
    )  # fmt: skip
    if out is not None:
        from scrimp.measure.format_page import page
        from scrimp.store.partial import write_durably

        write_durably(out, page(found, subject))
    if json:
        document = {"formats": [row.to_json() for row in found]}
        output.print_json(document | ({} if subject is None else {"on": subject.to_json()}))
    elif out is not None:
        print(f"{out}: {len(found)} formats, {out.stat().st_size / 1000:,.0f} kB")
    elif chosen:
        for row in found:
            _print_details(row, subject)
    else:
        _print_table(found, subject)


def _subject(on: str, tokenizer: Path | None) -> Subject:
    from scrimp.measure.format_report import subject_of
    from scrimp.sources import open_source
    from scrimp.sources.locate import locate

    model, colon, tensor = on.rpartition(":")
    if not colon or Path(on).exists():
        model, tensor = on, ""
    with open_source(locate(model), tokenizer=tokenizer) as source:
        return subject_of(source, model, tensor or None)


def _print_table(found: list[FormatRow], subject: Subject | None) -> None:
    from scrimp.cli import output

    columns = ["format", "bits/value", "block", "levels", "max", "min > 0", "SQNR dB", "energy pJ", "area", "kernels"]
    lines = [_row(row) for row in found]
    if subject is not None:
        columns += ["on it dB", "scaled dB"]
        lines = [[*line, *_on(row)] for line, row in zip(lines, found, strict=True)]
    output.print_table(columns, lines)
    print()
    for line in _notes(found, subject):
        print(line)


def _row(row: FormatRow) -> list[str]:
    return [
        row.name, f"{row.bits_per_value:.3f}", "–" if row.format.block is None else str(row.format.block),
        f"{row.levels:,}", f"{row.largest:.5g}", "–" if math.isnan(row.min_positive) else f"{row.min_positive:.3g}",
        decibels(row.sqnr_db),
        _known(row.energy_pj, ".3f"), _known(row.area, ".2f"), "run it" if row.format.runs else "–",
    ]  # fmt: skip


def _on(row: FormatRow) -> list[str]:
    assert row.on is not None
    return [decibels(row.on.sqnr_db), "" if row.on.sqnr_scaled_db is None else decibels(row.on.sqnr_scaled_db)]


def _notes(found: list[FormatRow], subject: Subject | None) -> list[str]:
    from scrimp.measure.format_report import ROUNDED, SIDE

    lines = [
        f"bits/value: of a {SIDE:,} × {SIDE:,} matrix, scales included. max, min > 0: before the scale.",
        "SQNR: signal to noise on a Gaussian of variance 1; formats without a scale (block –) take it as it is.",
    ]
    if any(row.energy_pj is not None for row in found):
        lines.append(
            "energy: modelled (45 nm), of one multiply-accumulate; area: of its synthesised circuit, over int8's."
        )
    else:
        lines.append("energy and area: not modelled.")
    if subject is not None:
        seen = "" if subject.seen == subject.weights else f", {subject.seen:,} of them in whole rows"
        lines += [
            f"on it: {subject.name}, {subject.weights:,} weights{seen}; stored as {subject.stored}, decoded first.",
            *([ROUNDED] if subject.rounded else []),
            "scaled: the same numbers in a format without a scale, given the best one per tensor.",
        ]
    return lines


def _print_details(row: FormatRow, subject: Subject | None) -> None:
    from scrimp.cli import output
    from scrimp.engine.float_path import run_format
    from scrimp.measure.format_words import definition, layout

    yes = (
        "yes, as it is stored"
        if row.format.runs
        else f"no: a model is decoded to {run_format(row.format).name} when it is opened"
    )
    facts = [
        ("definition", definition(row.format)),
        ("about", row.about),
        ("bits of a code", layout(row.format)),
        ("bits per value", f"{row.bits_per_value:.4f}"),
        ("levels", f"{row.levels:,}"),
        ("max, min > 0", f"{row.largest:.6g}, {row.min_positive:.6g}"),
        ("energy", "not modelled" if row.energy_pj is None else f"{row.energy_pj:.4f} pJ (modelled)"),
        ("area", "not modelled" if row.area is None else f"{row.area:.2f} × int8 (synthesised)"),
        ("kernels", yes),
    ]
    print(row.name)
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        print(f"  {name:<{width}}  {fact}".rstrip())
    if (levels := row.listed_levels(_LISTED)) is not None:
        print(f"  {'all levels':<{width}}  {'  '.join(f'{level:.5g}' for level in levels)}")
    print()
    columns = ("  on", "SQNR dB", "mse", "largest error", "cosine", "entropy", "capacity used")
    lines = [
        (f"  {name}", decibels(e.sqnr_db), f"{e.mse:.3g}", f"{e.max_error:.3g}", f"{e.cosine:.6f}",
         _known(e.entropy_bits, ".3f"), percent(e.capacity_used)) for name, e in row.errors.items()
    ]  # fmt: skip
    if row.on is not None and subject is not None:
        e = row.on
        lines.append((f"  {subject.name}", decibels(e.sqnr_db), f"{e.mse:.3g}", f"{e.max_error:.3g}",
                      f"{e.cosine:.6f}", _known(e.entropy_bits, ".3f"), percent(e.capacity_used)))  # fmt: skip
    output.print_table(columns, lines)
    if row.on is not None and subject is not None:
        _print_subject(row, subject)
    print()


def _print_subject(row: FormatRow, subject: Subject) -> None:
    from scrimp.cli import output

    on = row.on
    assert on is not None
    seen = "" if subject.seen == subject.weights else f", {subject.seen:,} of them looked at, in whole rows"
    print(f"\n  {subject.name}: {subject.weights:,} weights{seen}; stored as {subject.stored}, decoded first.")
    if len(subject.parts) > 1:
        print(f"  {len(subject.parts)} matrices, the worst {on.worst} with {decibels(on.worst_db)} dB.")
    if on.sqnr_scaled_db is not None:
        print(f"  With the best scale for the whole tensor: {decibels(on.sqnr_scaled_db)} dB.")
    uses = row.level_uses(subject)
    if uses is not None and len(uses) <= _LISTED:
        print()
        lines = [(f"  {u.level:.5g}", f"{u.percent:.2f}", f"{u.entropy_bits:.4f}", f"{u.capacity_percent:.2f}")
                 for u in uses]  # fmt: skip
        sums = [sum(column) for column in zip(*((u.percent, u.entropy_bits, u.capacity_percent) for u in uses),
                                              strict=True)]  # fmt: skip
        total = ("  all", f"{sums[0]:.2f}", f"{sums[1]:.4f}", f"{sums[2]:.2f}")
        output.print_table(("  level", "percent", "entropy", "capacity %"), [*lines, total])


def decibels(number: float) -> str:
    """
    >>> decibels(20.216), decibels(math.inf), decibels(math.nan)
    ('20.22', 'exact', '–')
    """
    if math.isnan(number):
        return "–"
    return ("exact" if number > 0 else "−∞") if math.isinf(number) else f"{number:.2f}"


def percent(share: float | None) -> str:
    """
    >>> percent(0.5)
    '50.0 %'
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def _known(number: float | None, spec: str) -> str:
    return "–" if number is None else format(number, spec)
