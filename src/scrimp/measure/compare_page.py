"""Models compared, as one HTML page: bytes against loss with the Pareto front, bytes against speed, and the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from scrimp.measure.compare import Row
from scrimp.measure.format_page import document
from scrimp.measure.scatter import LEAST_KL, Mark, scatter


def page(rows: Sequence[Row], columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The whole document; ``cells`` are the table as the terminal shows it."""
    first = rows[0]
    apart = all(row.evaluation.divergence is not None for row in rows)
    loss, name = (_kl, "KL to the reference, nats") if apart else (_perplexity, "perplexity")
    body = [
        "<h1>Models compared</h1>",
        f'<p class="soft">{escape(first.evaluation.protocol)}.'
        + (f" KL against {escape(str(first.evaluation.reference))} in float32." if apart else "")
        + f" {first.speed.threads} threads, {escape(first.speed.isa)}.</p>",
        '<div class="two">',
        figure("Bytes and loss", _chart(rows, loss, name, falling=True),
                "The line joins the models that none other beats in both: the Pareto front. BROKEN models are hollow."),
        figure("Bytes and speed", _chart(rows, _decode, "decode, tokens/s", falling=False),
                "One token at a time; the more, the better."),
        "</div>", "<h2>Table</h2>", table(columns, cells),
    ]  # fmt: skip
    return document("Models compared", body)


def _chart(rows: Sequence[Row], height: Callable[[Row], float], name: str, *, falling: bool) -> str:
    marks = [
        Mark(
            row.file_bytes / 1e6, height(row), Path(row.model).name, row.model, broken=row.evaluation.perplexity.broken
        )
        for row in rows
    ]
    return scatter(marks, "megabytes on disk, everything included", name, falling=falling, front_line=falling)


def _kl(row: Row) -> float:
    assert row.evaluation.divergence is not None
    return max(row.evaluation.divergence.kl_mean, LEAST_KL)


def _perplexity(row: Row) -> float:
    return row.evaluation.perplexity.ppl


def _decode(row: Row) -> float:
    return row.speed.decode_tokens_per_s.median


def figure(title: str, picture: str, words: str) -> str:
    """One picture with its title and what it shows."""
    return f"<figure><h3>{title}</h3>{picture}<figcaption>{escape(words)}</figcaption></figure>"


def table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Cells as the terminal shows them."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in cells]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
