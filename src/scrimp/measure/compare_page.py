"""Models compared, as one HTML page: bytes against loss with the Pareto front, bytes against speed, and the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from scrimp.measure import svg
from scrimp.measure.compare import Row
from scrimp.measure.format_page import document

#: A KL below this is drawn at it: the axis is logarithmic.
_LEAST_KL = 1e-4

Point = tuple[float, float]


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
        _figure("Bytes and loss", _chart(rows, loss, name, falling=True),
                "The line joins the models that none other beats in both: the Pareto front. BROKEN models are hollow."),
        _figure("Bytes and speed", _chart(rows, _decode, "decode, tokens/s", falling=False),
                "One token at a time; the more, the better."),
        "</div>", "<h2>Table</h2>", _table(columns, cells),
    ]  # fmt: skip
    return document("Models compared", body)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other is below and left of, from the left: fewer bytes or less loss.

    >>> front([(1, 5), (2, 6), (3, 1), (4, 1)])
    [(1, 5), (3, 1)]
    """
    kept: list[Point] = []
    for point in sorted(points):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return kept


def _chart(rows: Sequence[Row], height: Callable[[Row], float], name: str, *, falling: bool) -> str:
    sizes, values = [row.file_bytes / 1e6 for row in rows], [height(row) for row in rows]
    shown = [(s, v, row) for s, v, row in zip(sizes, values, rows, strict=True) if math.isfinite(v)]
    if not shown:
        return "<p>There is nothing finite to draw.</p>"
    tops = [value for _, value, _ in shown]
    low, high = (min(tops) / 1.5, max(tops) * 1.5) if falling else (0.0, max(tops) * 1.1 or 1.0)
    if falling:  # whole decades, so that a logarithmic axis has numbers
        low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
    x, y = svg.horizontal(0.0, max(sizes) * 1.12), svg.vertical(low, high, log=falling)
    parts = [svg.axes(x, y, "megabytes on disk, everything included", name)]
    placed = [(x.at(size), y.at(value), row) for size, value, row in shown]
    if falling:
        good = [(size, value) for size, value, row in shown if not row.evaluation.perplexity.broken]
        if len(line := front(good)) > 1:
            parts.append(svg.line([(x.at(size), y.at(value)) for size, value in line], "coded"))
    parts += [
        svg.dot(px, py, "broken" if row.evaluation.perplexity.broken else "f0", f"{row.model}: {value:.4g}")
        for (px, py, row), (_, value, _) in zip(placed, shown, strict=True)
    ]
    dots = [(px, py) for px, py, _ in placed]
    parts.append(svg.labels([(px, py, Path(row.model).name) for px, py, row in placed], dots, x, y))
    return svg.svg(parts, f"{name} against megabytes")


def _kl(row: Row) -> float:
    assert row.evaluation.divergence is not None
    return max(row.evaluation.divergence.kl_mean, _LEAST_KL)


def _perplexity(row: Row) -> float:
    return row.evaluation.perplexity.ppl


def _decode(row: Row) -> float:
    return row.speed.decode_tokens_per_s.median


def _figure(title: str, picture: str, words: str) -> str:
    return f"<figure><h3>{title}</h3>{picture}<figcaption>{escape(words)}</figcaption></figure>"


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in cells]
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
