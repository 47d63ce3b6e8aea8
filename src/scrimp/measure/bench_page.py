"""A measured speed as one HTML page: the roofline with every sort of operation on it, and the tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from scrimp.measure import svg
from scrimp.measure.compare_page import figure, table
from scrimp.measure.format_page import document
from scrimp.measure.speed import Ceilings, Speed
from scrimp.measure.traffic import OpCost

#: Phases and their colours; those of the roofs are the page's lines.
_PHASES = {"prefill": "f0", "decode": "f1"}


def page(speed: Speed, lines: Sequence[tuple[str, ...]], profile: Sequence[tuple[str, ...]]) -> str:
    """The whole document; ``lines`` and ``profile`` are the tables as the terminal shows them."""
    title = f"Speed of {speed.model}"
    words = (
        "A dot is a sort of operation: how much it computes for each byte of weights and cache that it reads, and how "
        "fast. No dot can be above its roof: reading memory, where weights are larger than the caches, and computing "
        "in registers. Between the two slanted roofs lies what still was in a cache."
    )
    key = "".join(f'<li><i class="{css}"></i>{phase}</li>' for phase, css in _PHASES.items())
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{speed.threads} threads, {escape(speed.isa)}; prompt of {speed.prefill} tokens, then '
        f"{speed.decode} one by one. All ceilings are of the same run and threads.</p>",
        '<div class="two">',
        figure("Roofline", roofline(speed.profile, speed.ceilings) + f'<ul class="key">{key}</ul>', words),
        figure("Where the time goes", _times(speed.profile), "Shares of each phase, busy time of all threads."),
        "</div>",
        "<h2>Measured</h2>", table(("measured", "median", "min … max"), lines),
        "<h2>Operations</h2>",
        table(("operation", "calls", "ms", "%", "MB", "GB/s", "G multiply-adds/s"), profile),
    ]  # fmt: skip
    return document(title, body)


def roofline(profile: Sequence[OpCost], ceilings: Ceilings) -> str:
    """Multiply-adds a second over multiply-adds a byte, both logarithmic.

    Operations without multiply-adds (norms, activations, rotations) have no place on it; the bars show their time.
    """
    shown = [cost for cost in profile if cost.macs and cost.bytes and cost.seconds]
    if not shown:
        return "<p>There is nothing to draw.</p>"
    places = [(cost.macs / cost.bytes, cost.macs / cost.seconds / 1e9) for cost in shown]
    roofs = {
        "int8 peak": ceilings.int8_gmac_per_s,
        "bfloat16 peak": ceilings.bf16_gmac_per_s,
        "float32 peak": ceilings.f32_gmac_per_s,
    }
    top = max((roof for roof in roofs.values() if roof), default=max(rate for _, rate in places))
    x = svg.horizontal(*_decades([at for at, _ in places]), log=True)
    y = svg.vertical(*_decades([*(rate for _, rate in places), top]), log=True)
    parts = [svg.axes(x, y, "multiply-adds per byte read", "G multiply-adds/s")]
    dots = [(x.at(at), y.at(rate)) for at, rate in places]
    written: list[tuple[float, float]] = []  # where words of the roofs are, which names of dots must not cover
    slanted: list[tuple[float, float]] = []
    for name, speed, css in (
        ("memory", ceilings.memory_read_gb_per_s, "shannon"), ("cache", ceilings.cache_read_gb_per_s, "coded"),
    ):  # fmt: skip
        ends = [max(x.low, y.low / speed), min(x.high, top / speed)]
        if ends[0] >= ends[1]:
            continue
        begin, end = ((x.at(at), y.at(at * speed)) for at in ends)
        parts.append(svg.line([begin, end], css))
        words, at_words = svg.along(begin, end, f"{name} {speed:,.0f} GB/s", -4)
        parts.append(words)
        written += at_words
        slanted += [
            (begin[0] + (end[0] - begin[0]) * i / 60, begin[1] + (end[1] - begin[1]) * i / 60) for i in range(61)
        ]
    for name, roof in roofs.items():
        if roof:
            words, height = f"{name} {roof:,.0f} G/s", y.at(roof) - 4
            parts.append(svg.line([(x.start, y.at(roof)), (x.end, y.at(roof))], "shannon"))
            left = _free(x, height, 5.8 * len(words), [*dots, *written, *slanted])
            parts.append(svg.text(left, height, words, css="small"))
            written += [(left + 6 * i, height - 4) for i in range(len(words))]
    for cost, (at, rate) in zip(shown, places, strict=True):
        told = f"{cost.phase} {cost.op}: {rate:.3g} G/s, {cost.bytes / cost.seconds / 1e9:.3g} GB/s"
        parts.append(svg.dot(x.at(at), y.at(rate), _PHASES.get(cost.phase, "f2"), told))
    marks = [(*at, _short(cost.op)) for cost, at in zip(shown, dots, strict=True)]
    parts.append(svg.labels(marks, [*dots, *written], x, y))
    return svg.svg(parts, "multiply-adds a second of every operation, and the machine's ceilings")


def _free(x: svg.Axis, height: float, wide: float, taken: Sequence[tuple[float, float]]) -> float:
    """Where words on a roof begin: at the place that the fewest points of other things are in."""

    def covered(left: float) -> int:
        return sum(left - 4 < px < left + wide + 4 and height - 13 < py < height + 3 for px, py in taken)

    return min((x.start + (x.end - x.start - wide) * share for share in (0.9, 1.0, 0.75, 0.6, 0.45, 0.02)), key=covered)


def _times(profile: Sequence[OpCost]) -> str:
    """One bar an operation, longest first in each phase; what takes less than half a percent is left out."""
    rows: list[tuple[OpCost, float]] = []
    for phase in _PHASES:
        costs = [cost for cost in profile if cost.phase == phase]
        total = sum(cost.seconds for cost in costs)
        rows += [(cost, cost.seconds / total) for cost in costs if total and cost.seconds / total >= 0.005]
    left, wide, each = 172.0, svg.WIDTH - 172.0 - 46, 16.0
    parts = []
    longest = max((share for _, share in rows), default=1.0)
    for at, (cost, share) in enumerate(rows):
        top = 6 + each * at
        parts.append(svg.text(left - 6, top + 10, f"{cost.phase} {_short(cost.op)}"[:30], "end"))
        place = f'x="{left:g}" y="{top:g}" width="{wide * share / longest:.1f}" height="{each - 4:g}"'
        colour = _PHASES[cost.phase].replace("f", "--c")
        parts.append(f'<rect style="fill: var({colour})" {place}><title>{escape(cost.op)}</title></rect>')
        parts.append(svg.text(left + wide * share / longest + 4, top + 10, f"{100 * share:.1f} %", css="small"))
    return svg.svg(parts, "shares of the time", each * len(rows) + 12)


def _short(op: str) -> str:
    """
    >>> _short("linear gate_proj up_proj"), _short("rms_norm input_layernorm"), _short("linear embed_tokens")
    ('gate up', 'rms_norm input_layernorm', 'head')
    """
    if op in ("linear embed_tokens", "linear lm_head"):
        return "head"
    return op.removeprefix("linear ").replace("_proj", "")


def _decades(values: Sequence[float]) -> tuple[float, float]:
    return 10.0 ** math.floor(math.log10(min(values) / 1.2)), 10.0 ** math.ceil(math.log10(max(values) * 1.2))
