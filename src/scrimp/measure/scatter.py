"""Models as dots: what they cost against what they lose or bring, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scrimp.measure import svg

#: A KL below this is drawn at it: the axis is logarithmic.
LEAST_KL = 1e-4

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A dot: ``title`` shows under a mouse, ``name`` beside it where there is room; ``css`` colours it."""

    x: float
    y: float
    name: str
    title: str
    css: str = "f0"
    broken: bool = False


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


def scatter(
    marks: Sequence[Mark], x_name: str, y_name: str, *, falling: bool, front_line: bool, log_x: bool = False
) -> str:
    """Dots and their names. ``falling``: less is better, on a logarithmic axis. BROKEN marks are hollow, and never on
    the front; names go to the front first, since there is not room for all."""
    shown = [mark for mark in marks if math.isfinite(mark.y)]
    if not shown:
        return "<p>There is nothing finite to draw.</p>"
    x, y = _horizontal([mark.x for mark in shown], log=log_x), _vertical([mark.y for mark in shown], log=falling)
    parts = [svg.axes(x, y, x_name, y_name)]
    best = front([(mark.x, mark.y) for mark in shown if not mark.broken]) if front_line else []
    if len(best) > 1:
        parts.append(svg.line([(x.at(size), y.at(value)) for size, value in best], "coded"))
    parts += [
        svg.dot(x.at(mark.x), y.at(mark.y), "broken" if mark.broken else mark.css, f"{mark.title}: {mark.y:.4g}")
        for mark in shown
    ]
    named = sorted(shown, key=lambda mark: (mark.x, mark.y) not in best)
    dots = [(x.at(mark.x), y.at(mark.y)) for mark in shown]
    parts.append(svg.labels([(x.at(mark.x), y.at(mark.y), mark.name) for mark in named], dots, x, y))
    return svg.svg(parts, f"{y_name} against {x_name}")


def _horizontal(values: Sequence[float], *, log: bool) -> svg.Axis:
    """From zero, unless all are so near each other that nothing could be told apart there."""
    if log:
        return svg.horizontal(*_decades(values), log=True)
    low, high = min(values), max(values)
    room = 0.12 * (high - low)
    return svg.horizontal(low - room, high + room) if low > high / 2 and room else svg.horizontal(0.0, high * 1.12)


def _vertical(values: Sequence[float], *, log: bool) -> svg.Axis:
    return svg.vertical(*_decades(values), log=True) if log else svg.vertical(0.0, max(values) * 1.1 or 1.0)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Whole ones around the values, so that a logarithmic axis has numbers."""
    return 10.0 ** math.floor(math.log10(min(values) / 1.5)), 10.0 ** math.ceil(math.log10(max(values) * 1.5))
