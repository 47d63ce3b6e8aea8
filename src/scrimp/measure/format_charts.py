"""The pictures of the format report: one function, one chart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scrimp.formats import encode
from scrimp.measure import rate_distortion
from scrimp.measure.format_error import error_by_magnitude, finite_levels, level_values
from scrimp.measure.format_report import FormatRow
from scrimp.measure.format_words import FAMILIES, family
from scrimp.measure.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    axes,
    bars,
    dot,
    horizontal,
    labels,
    line,
    strokes,
    svg,
    text,
    vertical,
)
from scrimp.tensors import QTensor

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Formats whose largest number is this many times the smallest are drawn on a scale of powers of two.
_LINEAR_RATIO = 512
_BINS = 80
#: As many formats are all named in a chart; of more, those that no other beats with as few bits.
_NAMED = 16
_SMALL = 150.0
#: Bits per value beyond which formats are in the table but not in the charts.
MOST_BITS = 10.0


def slug(name: str) -> str:
    """A format's name as the anchor of its card."""
    return name.replace(":", "-").replace("@", "-").replace(".", "_")


def colour(row: FormatRow) -> str:
    """The class that gives a format the colour of its family."""
    return f"f{FAMILIES.index(family(row.format))}"


def error_scatter(rows: Sequence[FormatRow], *, on: bool, bounds: bool) -> str:
    """Bits × SQNR, with what is possible on a Gaussian where ``bounds`` apply."""
    points = []
    for row in rows:
        found = row.on if on else row.errors["gaussian"]
        bits = row.on.bits_per_weight if on and row.on is not None else row.bits_per_value
        if found is not None and bits <= MOST_BITS and math.isfinite(found.sqnr_db):
            points.append((bits, max(found.sqnr_db, -4.0), row))
    x, y = horizontal(0.5, MOST_BITS), vertical(-5, 60)
    body = [axes(x, y, "bits per value, scales included", "SQNR, dB")]
    if bounds:
        rates = np.linspace(0.5, MOST_BITS, 40)
        shannon = [(b, d) for b in rates if (d := rate_distortion.shannon_db(float(b))) <= 60]
        coded = [(q.entropy_bits, q.sqnr_db) for step in np.geomspace(4, 0.006, 40)
                 if 0.5 <= (q := rate_distortion.entropy_coded(float(step))).entropy_bits <= MOST_BITS]  # fmt: skip
        lloyd = [(math.log2(n), rate_distortion.lloyd_max(n).sqnr_db) for n in (2, 3, 4, 6, 8, 16, 32, 64, 128, 256)]
        for curve, css in ((shannon, "shannon"), (coded, "coded"), (lloyd, "lloyd")):
            body.append(line([(x.at(float(b)), y.at(d)) for b, d in curve if d <= 60], css))
    body += [dot(x.at(b), y.at(d), colour(row), f"{row.name}: {b:.2f} bits, {d:.2f} dB", slug(row.name))
             for b, d, row in points]  # fmt: skip
    named = [(b, d, row.name) for b, d, row in points]
    best = [*_front(named), *(named if len(named) <= _NAMED else [])]
    dots = [(x.at(b), y.at(d)) for b, d, _ in named]
    body.append(labels(dict.fromkeys((x.at(b), y.at(d), name) for b, d, name in best), dots, x, y))
    return svg(body, "SQNR of every format over its bits per value")


def energy_scatter(rows: Sequence[FormatRow]) -> str:
    """Bits × modelled energy of a multiply-accumulate; empty where nothing is modelled."""
    points = [(row.bits_per_value, row.energy_pj, row) for row in rows if row.energy_pj]
    if not points:
        return ""
    costs = [cost for _, cost, _ in points]
    x = horizontal(0.5, max(MOST_BITS, math.ceil(max(b for b, _, _ in points)) + 1.0))
    y = vertical(10 ** math.floor(math.log10(min(costs))), 10 ** math.ceil(math.log10(max(costs))), log=True)
    body = [axes(x, y, "bits per value, scales included", "pJ per multiply-accumulate")]
    body += [dot(x.at(b), y.at(c), colour(row), f"{row.name}: {b:.2f} bits, {c:.3f} pJ", slug(row.name))
             for b, c, row in points]  # fmt: skip
    best = _front([(b, -c, row.name) for b, c, row in points])
    others = [(b, -c, row.name) for b, c, row in points]
    named = [(x.at(b), y.at(-c), name) for b, c, name in [*best, *others]]
    body.append(labels(dict.fromkeys(named), [(x.at(b), y.at(c)) for b, c, _ in points], x, y))
    return svg(body, "Modelled energy of a multiply-accumulate over bits per value")


def number_line(row: FormatRow) -> str:
    """Every number of the format: as it lies, or by powers of two where the range is wide."""
    levels = finite_levels(row.format)
    positive = levels[levels > 0]
    height = 60.0
    if not positive.size or positive[-1] / positive[0] <= _LINEAR_RATIO:
        low, high = float(levels[0]), float(levels[-1])
        x = horizontal(low, high)
        ends: Iterable[float] = [low, *([0.0] if low < 0 < high else []), high]
        shown = [(value, f"{value:.4g}") for value in ends]
        places, label = [x.at(v) for v in levels], "numbers, before the scale"
    else:
        low, high = math.log2(positive[0]), math.log2(positive[-1])
        x = horizontal(low, high)
        shown = [(tick, f"2^{tick:g}") for tick in x.ticks(6)]
        places, label = [x.at(math.log2(v)) for v in positive], "positive numbers, by powers of two"
    marks = [text(x.at(value), 39, words.replace("-", "−"), _anchor(x.at(value))) for value, words in shown]
    body = [f'<path class="axis" d="M{x.start:g} 24H{x.end:g}"/>', strokes(places, 8, 16, colour(row)), *marks]
    return svg([*body, text((x.start + x.end) / 2, 56, label, "middle", "name")], f"Number line of {row.name}", height)


def magnitude_chart(row: FormatRow) -> str:
    """Relative error over magnitude; empty for float32, which is the measure."""
    points = list(error_by_magnitude(row.format))
    if not points:
        return ""
    floor = min(-40.0, 20.0 * math.floor(min(d for _, d in points) / 20))
    x, y = horizontal(-20, 1), vertical(floor, 0, height=_SMALL)
    inside = [(x.at(m), y.at(min(d, 0.0))) for m, d in points]
    body = [
        axes(x, y, "magnitude: octaves below the largest number", "error, dB"),
        line(inside, f"curve {colour(row)}"),
    ]
    return svg(body, f"Relative error of {row.name} over magnitude", _SMALL)


def level_histogram(row: FormatRow, values: F32, of: str) -> str:
    """Where the numbers lie, divided by their scales, and the levels they are rounded to."""
    stored = encode(values, row.format)
    scaled = over_scales(values, stored)
    scaled = scaled[np.isfinite(scaled)]
    levels = np.sort(level_values(stored)) if "codebook" in stored.extra else finite_levels(row.format)
    if not scaled.size:
        return ""
    low, high = (float(q) for q in np.quantile(scaled, (0.001, 0.999)))
    if not low < high:
        low, high = low - 1, high + 1
    counts, _ = np.histogram(scaled, _BINS, (low, high))
    x, y = horizontal(low, high), vertical(0, 1.05, height=_SMALL)
    inside = levels[(levels >= low) & (levels <= high)]
    body = [
        bars(counts / counts.max(), x, y, "histogram"),
        strokes([x.at(v) for v in inside], TOP, _SMALL - TOP - BOTTOM, f"levels {colour(row)}"),
        f'<path class="axis" d="M{LEFT:g} {_SMALL - BOTTOM:g}H{WIDTH - RIGHT:g}"/>',
        *(text(x.at(tick), y.start + 13, f"{tick:.6g}".replace("-", "−"), "middle") for tick in x.ticks()),
        text((x.start + x.end) / 2, y.start + 29, f"{of}, divided by the scales", "middle", "name"),
    ]
    return svg(body, f"Histogram of {of} against the levels of {row.name}", _SMALL)


def over_scales(values: F32, stored: QTensor) -> F64:
    """``values`` in the units of the element: minus the min, divided by the scale of their block; 0 where that is 0."""
    x = values.reshape(stored.shape).astype(np.float64)
    if stored.format.scale is None:
        return x.ravel()
    cols = x.shape[1]
    column = np.arange(cols) // stored.format.group(cols)
    if stored.mins is not None:
        x = x - stored.row_mins()[:, column]
    by = stored.row_scales()[:, column]
    return np.divide(x, by, out=np.zeros_like(x), where=by != 0).ravel()


def _anchor(at: float) -> str:
    return "start" if at <= LEFT + 1 else "end" if at >= WIDTH - RIGHT - 1 else "middle"


def _front(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Those that nothing with as few bits beats."""
    best: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best
