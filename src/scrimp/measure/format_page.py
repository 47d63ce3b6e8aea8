"""The format report as one HTML page: pictures inline, no script, nothing fetched; for phone and desktop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from scrimp.measure import format_charts as charts
from scrimp.measure.format_charts import slug
from scrimp.measure.format_error import DISTRIBUTIONS, sample
from scrimp.measure.format_report import ROUNDED, SIDE, FormatRow, Subject
from scrimp.measure.format_words import FAMILIES, definition, family, layout

#: Numbers of a histogram.
_SHOWN = 1 << 15

_STYLE = (
    """
:root { color-scheme: light dark; --back: #fbfaf7; --card: #fff; --ink: #23211e; --soft: #6d6861; --rule: #e2ded6;
  --c0: #1f6fb2; --c1: #b4471f; --c2: #7a4fa3; --c3: #20805a; --c4: #a3236e; --c5: #8a6a00; --bar: #d9d4ca; }
@media (prefers-color-scheme: dark) { :root { --back: #191816; --card: #23211e; --ink: #ece8e1; --soft: #a49d93;
  --rule: #3a3733; --c0: #6fb4ee; --c1: #f08c63; --c2: #bf98e8; --c3: #5fc79b; --c4: #ee7fbc; --c5: #d9b545;
  --bar: #48443e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.7rem; margin: .4em 0 0; overflow-wrap: anywhere; } h2 { font-size: 1.25rem; margin: 2em 0 .3em; }
h3 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; } p { margin: .4em 0; max-width: 75ch;
  overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .88rem; } a { color: inherit; }
.two { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 350px), 1fr)); }
figure, article { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px;
  min-width: 0; }
article { content-visibility: auto; contain-intrinsic-size: auto 560px; }
article p { margin: .25em 0; font-size: .88rem; }
article:target { outline: 2px solid var(--c0); }
svg { display: block; width: 100%; max-width: 520px; height: auto; margin: 0 auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg text.small { font-size: 10.5px; fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
 svg path { fill: none; } svg a { cursor: pointer; }
.grid { stroke: var(--rule); stroke-width: .7; } .axis { stroke: var(--soft); stroke-width: .8; }
.shannon { stroke: var(--ink); stroke-width: 1.3; }
.coded { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 5 3; }
.lloyd { stroke: var(--ink); stroke-width: 1.3; stroke-dasharray: 1 3; stroke-linecap: round; }
.curve { stroke-width: 1.6; stroke-linejoin: round; } svg path.histogram { fill: var(--bar); } .levels { opacity: .75; }
circle { stroke: var(--card); stroke-width: .8; }
circle.broken { fill: var(--card); stroke: var(--c1); stroke-width: 1.6; }
"""
    + "".join(
        f".f{i} {{ stroke: var(--c{i}); }} circle.f{i} {{ fill: var(--c{i}); stroke: var(--card); }} "
        f"i.f{i} {{ background: var(--c{i}); }}\n"
        for i in range(len(FAMILIES))
    )
    + """
.key { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 6px 0 0; padding: 0; list-style: none; font-size: .85rem;
  color: var(--soft); }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 5px; }
.key svg { display: inline-block; width: 26px; height: 8px; vertical-align: middle; margin: 0 5px 0 0; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 7px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
@media (max-width: 600px) { td { white-space: normal; } }
th { color: var(--soft); font-weight: 600; } code { font: .85rem ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: auto auto; gap: 0 10px; margin: .5em 0; font-size: .88rem; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
"""
)


def page(rows: Sequence[FormatRow], subject: Subject | None) -> str:
    """The whole document. ``rows`` carry errors on all three distributions, and on ``subject`` where there is one."""
    title = "Number formats" if subject is None else f"Number formats on {subject.name}"
    body = [_head(title, rows, subject), '<div class="two">', *_overview(rows, subject), "</div>",
            "<h2>Table</h2>", _table(rows, subject), *_cards(rows, subject)]  # fmt: skip
    return document(title, body)


def document(title: str, body: Sequence[str]) -> str:
    """A page of scrimp: one style, nothing fetched."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _head(title: str, rows: Sequence[FormatRow], subject: Subject | None) -> str:
    words = [f"<h1>{escape(title)}</h1>", f'<p class="soft">{len(rows)} formats. '
             f"Bits per value are those of a {SIDE:,} × {SIDE:,} matrix with its scales. SQNR is signal to noise: "
             "6 dB less is twice the error. Formats without a scale take numbers as they are.</p>"]  # fmt: skip
    if subject is not None:
        seen = "" if subject.seen == subject.weights else f", of which {subject.seen:,} in whole rows are looked at"
        matrices = "" if len(subject.parts) == 1 else f" in {len(subject.parts)} matrices"
        already = f" {ROUNDED}" if subject.rounded else ""
        words.append(f"<p>{escape(subject.name)}: {subject.weights:,} weights{matrices}{seen}; "
                     f"stored as {escape(subject.stored)}, decoded to float32 first.{already}</p>")  # fmt: skip
    return "\n".join(words)


def _overview(rows: Sequence[FormatRow], subject: Subject | None) -> list[str]:
    families = sorted({FAMILIES.index(family(row.format)) for row in rows})
    dots = "".join(f'<li><i class="f{i}"></i>{FAMILIES[i]}</li>' for i in families)
    lines = "".join(
        f'<li><svg viewBox="0 0 26 8" aria-hidden="true"><path class="{css}" d="M0 4H26"/></svg>{words}</li>'
        for css, words in (("shannon", "Shannon's bound"), ("coded", "uniform steps, entropy coded"),
                           ("lloyd", "Lloyd–Max levels"))
    )  # fmt: skip
    wide = f" Formats of more than {charts.MOST_BITS:g} bits are in the table."
    words = "The lines hold for single numbers of unit variance; above Shannon's there is nothing." + wide
    found = [_figure("Error on a Gaussian", charts.error_scatter(rows, on=False, bounds=True), dots + lines, words)]
    if subject is not None:
        words = "The mean noise-to-signal ratio of its tensors." if len(subject.parts) > 1 else ""
        words += " Formats at the lower edge lose nearly everything: they want a scale." + wide
        found.append(
            _figure(f"Error on {subject.name}", charts.error_scatter(rows, on=True, bounds=False), dots, words)
        )
    energy = charts.energy_scatter(rows)
    words = "Modelled from published tables, 45 nm, never measured: one multiply-accumulate, memory not counted."
    found.append(_figure("Energy", energy, dots, words) if energy else "<figure>Energy is not modelled.</figure>")
    return found


def _figure(title: str, picture: str, key: str, words: str) -> str:
    return (f'<figure><h3>{escape(title)}</h3>{picture}<ul class="key">{key}</ul>'
            f"<figcaption>{escape(words.strip())}</figcaption></figure>")  # fmt: skip


def _table(rows: Sequence[FormatRow], subject: Subject | None) -> str:
    columns = ["format", "bits/value", "block", "levels", "max", "min > 0", "Gaussian dB", "Laplace dB", "Student t dB"]
    columns += ["on it, dB", "with a scale"] if subject is not None else []
    columns += ["energy pJ", "area / int8", "kernels"]
    lines = []
    for row in rows:
        cells = [f'<a href="#{slug(row.name)}">{escape(row.name)}</a>', f"{row.bits_per_value:.3f}"]
        cells += [_known(row.format.block, ""), f"{row.levels:,}", f"{row.largest:.5g}"]
        cells += [_number(row.min_positive, ".3g"), *(_number(row.errors[name].sqnr_db) for name in DISTRIBUTIONS)]
        if row.on is not None:
            scaled = row.on.sqnr_scaled_db
            cells += [_number(row.on.sqnr_db), "" if scaled is None else _number(scaled)]
        cells += [_known(row.energy_pj, ".3f"), _known(row.area, ".2f"), "yes" if row.format.runs else "–"]
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _cards(rows: Sequence[FormatRow], subject: Subject | None) -> list[str]:
    values = sample("gaussian", _SHOWN) if subject is None else _shown(subject)
    of = "a Gaussian" if subject is None else "the weights"
    found = []
    for name in FAMILIES:
        members = [row for row in rows if family(row.format) == name]
        if members:
            cards = [_card(row, values, of) for row in members]
            found += [f"<h2>{name.capitalize()}</h2>", '<div class="cards">', *cards, "</div>"]
    return found


def _card(row: FormatRow, values: NDArray[np.float32], of: str) -> str:
    facts = [("bits per value", f"{row.bits_per_value:.3f}"), ("numbers", f"{row.levels:,}")]
    gaussian = row.errors["gaussian"]
    facts += [("on a Gaussian, dB", _number(gaussian.sqnr_db))]
    if gaussian.capacity_used is not None:
        facts += [("entropy of a code", f"{gaussian.entropy_bits:.2f} bits ({100 * gaussian.capacity_used:.0f} %)")]
    if row.on is not None:
        facts += [("on the weights, dB", _number(row.on.sqnr_db))]
    listed = "".join(f"<dt>{key}</dt><dd>{fact}</dd>" for key, fact in facts)
    return (
        f'<article id="{slug(row.name)}"><h3>{escape(row.name)}</h3>'
        f"<p>{escape(definition(row.format))}</p><p><code>{escape(layout(row.format))}</code></p><dl>{listed}</dl>"
        f"{charts.number_line(row)}{charts.magnitude_chart(row)}{charts.level_histogram(row, values, of)}</article>"
    )


def _shown(subject: Subject) -> NDArray[np.float32]:
    """Some rows of the middle tensor: rows of several would have to share scales."""
    _, values = subject.parts[len(subject.parts) // 2]
    return values[: max(1, _SHOWN // values.shape[-1])] if values.ndim == 2 else values


def _number(value: float, spec: str = ".2f") -> str:
    if math.isnan(value):
        return "–"
    return ("exact" if value > 0 else "−∞") if math.isinf(value) else format(value, spec).replace("-", "−")


def _known(value: object, spec: str) -> str:
    return "–" if value is None else format(value, spec)
