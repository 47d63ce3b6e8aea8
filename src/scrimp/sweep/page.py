"""A sweep as one HTML page: bytes and time against loss, one colour a method, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from scrimp.measure.compare_page import figure, table
from scrimp.measure.format_page import document
from scrimp.measure.scatter import LEAST_KL, Mark, scatter
from scrimp.sweep.cell import Result, Setting

#: Colours that the style of a page has.
_COLOURS = 6
#: Less is drawn as this: the axis is logarithmic.
_LEAST_SECONDS = 0.01


def page(results: Sequence[Result], setting: Setting, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """The whole document; ``cells`` are the table as the terminal shows it."""
    made = [result for result in results if result.loss is not None]
    methods = list(dict.fromkeys(result.method for result in made))
    sizes = [_mark(result, result.file_bytes / 1e6, methods) for result in made]
    times = [_mark(result, max(result.seconds, _LEAST_SECONDS), methods) for result in made]
    loss = "KL to the reference, nats"
    protocol = made[0].loss.protocol if made and made[0].loss is not None else "nothing was measured"
    failed = [f"<li>{escape(result.name)}: {escape(result.error)}</li>" for result in results if result.error]
    body = [
        f"<h1>{escape(setting.model.rpartition('/')[2])}, {len(results)} ways</h1>",
        f'<p class="soft">{escape(protocol)}. KL against {escape(setting.reference)} in float32.</p>',
        '<div class="two">',
        figure("Bytes and loss", scatter(sizes, "megabytes on disk, everything included", loss, falling=True,
                                         front_line=True),
               "The line joins what nothing else beats in both: the Pareto front. BROKEN ones are hollow."),
        figure("Time and loss", scatter(times, "seconds to plan and compress", loss, falling=True,
                                        front_line=False, log_x=True),
               "What a smaller loss costs once, when the model is made."),
        "</div>", _key(methods), "<h2>Table</h2>", table(columns, cells),
        *(["<h2>Not made</h2><ul>", *failed, "</ul>"] if failed else []),
    ]  # fmt: skip
    return document("Sweep", body)


def _mark(result: Result, x: float, methods: Sequence[str]) -> Mark:
    assert result.loss is not None
    css = f"f{methods.index(result.method) % _COLOURS}"
    return Mark(x, max(result.loss.kl_mean, LEAST_KL), result.name, result.name, css, result.loss.broken)


def _key(methods: Sequence[str]) -> str:
    entries = (f'<li><i class="f{at % _COLOURS}"></i> {escape(name)}</li>' for at, name in enumerate(methods))
    return f'<ul class="key">{"".join(entries)}</ul>'
