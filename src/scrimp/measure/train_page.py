"""A training as one HTML page: its curves, and how the weights of every operation lie on their levels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from scrimp.measure import svg
from scrimp.measure.format_page import document
from scrimp.measure.train_report import Layer, TrainReport
from scrimp.sizes import format_bytes, format_seconds

#: The height of a row of levels, and the share of it that is drawn.
_ROW = 26.0


def page(report: TrainReport) -> str:
    """The whole document."""
    title = f"Training of {report.recipe.get('model', {}).get('name', 'a network')} on "
    data = report.recipe.get("data", {})
    title += f"{data.get('set', 'pictures')} {data['size'].replace('x', ' × ') if 'size' in data else ''}".rstrip()
    body = [f"<h1>{escape(title)}</h1>", _summary(report), '<div class="two">', _accuracy(report), _loss(report),
            "</div>", "<h2>Weights on their levels</h2>", _levels(report),
            "<h2>Operations</h2>", _table(report), "<h2>Recipe</h2>", _recipe(report.recipe)]  # fmt: skip
    return document(title, body)


def _summary(report: TrainReport) -> str:
    facts = [("test accuracy", f"{100 * report.accuracy:.2f} ± {100 * report.accuracy_se:.2f} %")]
    if report.integer is not None:
        facts.append(("in integers", f"{100 * report.integer:.2f} %"))
        facts.append(("answers alike", f"{report.same:,} of {report.test_pictures:,}"))
    facts += [("weights", format_bytes(report.weight_bytes)), ("parameters", f"{report.parameters:,}"),
              ("multiplications a picture", f"{report.multiplications:,}"),
              ("pictures", f"{report.train_pictures:,} + {report.test_pictures:,}"),
              ("time", f"{len(report.curve)} epochs, {format_seconds(report.seconds)}")]  # fmt: skip
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    words = "The accuracy is that after the last epoch, not that of the best."
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return f'<figure style="max-width: 430px"><dl>{listed}</dl></figure><p class="soft">{words}</p>{notes}'


def _accuracy(report: TrainReport) -> str:
    rows = report.curve
    curves = [("f0", "test", [100 * row.test_accuracy for row in rows]),
              ("f1", "train, augmented", [100 * row.train_accuracy for row in rows])]  # fmt: skip
    low = min(min(values) for _, _, values in curves)
    return _chart("Accuracy", curves, max(0.0, low - 2), 100.0, "%", report)


def _loss(report: TrainReport) -> str:
    values = [row.loss for row in report.curve]
    return _chart("Loss", [("f2", "train, augmented", values)], 0.0, 1.05 * max(*values, 1e-6), "loss", report)


def _chart(
    title: str, curves: list[tuple[str, str, list[float]]], low: float, high: float, unit: str, report: TrainReport
) -> str:
    """Lines over epochs, and an upright stroke where weights took another format."""
    count = len(report.curve)
    x, y = svg.horizontal(0, max(count, 2)), svg.vertical(low, high)
    body = [svg.axes(x, y, "epochs", unit)]
    for at in range(1, count):
        if report.curve[at].weights != report.curve[at - 1].weights:
            body.append(f'<path class="axis" d="M{x.at(at):.1f} {y.start:g}V{y.end:g}"/>')
            body.append(svg.text(x.at(at) + 3, y.end + 10, report.curve[at].weights, css="small"))
    for css, _, values in curves:
        places = [(x.at(at), y.at(min(high, max(low, value)))) for at, value in enumerate(values, 1)]
        body.append(svg.line(places, f"curve {css}") if count > 1 else svg.dot(*places[0], css, f"{values[0]:.4g}"))
    key = "".join(f'<li><i class="{css}"></i>{escape(name)}</li>' for css, name, _ in curves)
    return (f"<figure><h3>{escape(title)}</h3>{svg.svg(body, f'{title} over epochs')}"
            f'<ul class="key">{key}</ul></figure>')  # fmt: skip


def _levels(report: TrainReport) -> str:
    """One row of bars for each operation: the shares of its codes."""
    shown = [layer for layer in report.layers if layer.shares]
    if not shown:
        return '<p class="soft">No operation has few enough levels to draw.</p>'
    height = _ROW * len(shown) + 24
    body = []
    for at, layer in enumerate(shown):
        body += _bars(layer, _ROW * at + 8)
    words = "Bars from the lowest level to the highest; the highest bar of a row is its most frequent level."
    picture = svg.svg(body, "shares of levels", height)
    return f'<figure style="max-width: 560px">{picture}<figcaption>{words}</figcaption></figure>'


def _bars(layer: Layer, top: float) -> list[str]:
    left, wide, tall = 84.0, svg.WIDTH - 84.0 - 10, _ROW - 6
    each = wide / len(layer.shares)
    parts = [svg.text(left - 6, top + tall - 3, layer.name, "end")]
    for at, share in enumerate(layer.shares):
        rise = tall * share / max(layer.shares)
        title = f"{_signed(layer.levels[at])}: {100 * share:.1f} %" if layer.levels else f"{100 * share:.1f} %"
        place = f'x="{left + at * each:.1f}" y="{top + tall - rise:.1f}" width="{0.92 * each:.1f}" height="{rise:.1f}"'
        parts.append(f'<rect style="fill: var(--c0)" {place}><title>{escape(title)}</title></rect>')
    return parts


def _table(report: TrainReport) -> str:
    columns = ("operation", "outputs × inputs", "format", "bytes", "entropy, bits", "capacity used", "level: %")
    head = "".join(f"<th>{name}</th>" for name in columns)
    lines = []
    for layer in report.layers:
        told = ", ".join(
            f"{_signed(level)}: {100 * share:.1f}" for level, share in zip(layer.levels, layer.shares, strict=True)
        )
        cells = [layer.name, f"{layer.shape[0]:,} × {layer.shape[1]:,}", layer.format, f"{layer.bytes:,}",
                 "" if layer.entropy_bits is None else f"{layer.entropy_bits:.3f}",
                 "" if layer.capacity_used is None else f"{100 * layer.capacity_used:.1f} %", told]  # fmt: skip
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _recipe(recipe: Mapping[str, Any]) -> str:
    """Every key that was set; the rest is as docs/recipes.md says."""
    rows = []
    for table, held in recipe.items():
        for key, value in held.items() if isinstance(held, Mapping) else [("", held)]:
            name = f"{table}.{key}" if key else table
            rows.append(f"<tr><td>{escape(name)}</td><td>{escape(json.dumps(value, default=str))}</td></tr>")
    return f'<div class="wide"><table><tbody>{"".join(rows)}</tbody></table></div>'


def _signed(level: float) -> str:
    """Zero has no sign."""
    return f"{level:+.3g}" if level else "0"
