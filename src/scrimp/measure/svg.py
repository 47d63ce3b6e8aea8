"""Plain charts as inline SVG: axes, lines, dots, bars. Colours and fonts are the page's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

#: Of a chart, in the units of its viewBox: a phone's width, so that text keeps its size.
WIDTH, HEIGHT = 380.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 10.0, 10.0, 34.0


@dataclass(frozen=True, slots=True)
class Axis:
    """Numbers from ``low`` to ``high`` on ``start`` to ``end``; ``log`` for decades."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = math.log10(value) if self.log else value
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, most: int = 8) -> list[float]:
        """Round numbers, or powers of ten."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, -(-(last - first + 1) // most))
            return [10.0**e for e in range(first, last + 1, every)]
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def horizontal(low: float, high: float, *, log: bool = False) -> Axis:
    """The axis below a chart."""
    return Axis(low, high, LEFT, WIDTH - RIGHT, log)


def vertical(low: float, high: float, *, log: bool = False, height: float = HEIGHT) -> Axis:
    """The axis left of a chart."""
    return Axis(low, high, height - BOTTOM, TOP, log)


def svg(body: Iterable[str], label: str, height: float = HEIGHT) -> str:
    """One picture; ``label`` is what it shows, for who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(label)}">' + "".join(body) + "</svg>"
    )


def axes(x: Axis, y: Axis, x_label: str, y_label: str) -> str:
    """Grid, numbers and names of both axes."""
    parts = []
    for tick in x.ticks():
        at = x.at(tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {y.end:g}V{y.start:g}"/>')
        words = number(tick)
        parts.append(text(min(at, WIDTH - 4 * len(words)), y.start + 15, words, "middle"))
    for tick in y.ticks(6):
        at = y.at(tick)
        parts.append(f'<path class="grid" d="M{x.start:g} {at:.1f}H{x.end:g}"/>')
        words = f"{tick:.0e}".replace("e+0", "e") if y.log and tick >= 1e4 else number(tick)  # the name is beside it
        parts.append(text(x.start - 5, at + 3.5, words, "end"))
    parts.append(text((x.start + x.end) / 2, y.start + 29, x_label, "middle"))
    middle = (y.start + y.end) / 2
    parts.append(f'<text class="name" text-anchor="middle" transform="translate(11 {middle:.0f}) rotate(-90)">'
                 f"{escape(y_label)}</text>")  # fmt: skip
    return "".join(parts)


def text(x: float, y: float, words: str, anchor: str = "start", css: str = "") -> str:
    """Words whose baseline begins, is centred or ends at a point."""
    css = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}>{escape(words)}</text>'


def line(points: Sequence[tuple[float, float]], css: str) -> str:
    """A polyline through points given in the units of the picture."""
    return f'<path class="{css}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def along(
    begin: tuple[float, float], end: tuple[float, float], words: str, below: float
) -> tuple[str, list[tuple[float, float]]]:
    """Words along a rising line, near its upper end and ``below`` it; and points that they cover."""
    (x0, y0), (x1, y1) = begin, end
    length = math.hypot(x1 - x0, y1 - y0)
    right, down = (x1 - x0) / length, (y1 - y0) / length
    stop = length - 8  # of the words
    places = [(x0 + right * at - down * below * 0.6, y0 + down * at + right * below * 0.6)
              for at in (stop - 6 * i for i in range(len(words)))]  # fmt: skip
    angle = math.degrees(math.atan2(down, right))
    move = f"translate({x0 + right * stop:.1f} {y0 + down * stop:.1f}) rotate({angle:.1f})"
    return f'<text class="small" text-anchor="end" transform="{move}" y="{below:g}">{escape(words)}</text>', places


def dot(x: float, y: float, css: str, title: str, target: str = "") -> str:
    """A dot that says ``title`` under a mouse and leads to ``#target``."""
    mark = f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="3.4"><title>{escape(title)}</title></circle>'
    return f'<a href="#{escape(target)}">{mark}</a>' if target else mark


def strokes(positions: Iterable[float], y: float, length: float, css: str) -> str:
    """Upright strokes; those that fall on the same half unit are drawn once."""
    places = sorted({round(2 * x) / 2 for x in positions})
    return f'<path class="{css}" d="{"".join(f"M{x:g} {y:g}v{length:g}" for x in places)}"/>'


def bars(shares: Sequence[float], x: Axis, y: Axis, css: str) -> str:
    """Bars of equal width over the whole axis, as one shape."""
    width = (x.end - x.start) / len(shares)
    tops = "".join(f"V{y.at(share):.1f}h{width:.2f}" for share in shares)
    return f'<path class="{css}" d="M{x.start:g} {y.start:g}{tops}V{y.start:g}Z"/>'


#: Where a name goes, from its dot: the first that is free.
_NEAR = ((6, 3, "start"), (-6, 3, "end"), (0, -7, "middle"), (0, 14, "middle"))
_FAR = tuple((side * 16, rise, anchor) for rise in (18, -14, 32, -28, 46, -42)
             for side, anchor in ((1, "start"), (-1, "end")))  # fmt: skip


def labels(points: Iterable[tuple[float, float, str]], dots: Iterable[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The names of points, beside, above or below each, else farther off at a line; on no other name or dot.

    Where there is no room, none.
    """
    taken = [(px - 3.5, py - 3.5, px + 3.5, py + 3.5) for px, py in dots]
    parts = []
    for px, py, words in points:
        wide = 5.8 * len(words)
        for dx, dy, anchor in (*_NEAR, *_FAR):
            left = px + dx - {"start": 0.0, "end": wide, "middle": wide / 2}[anchor]
            box = (left, py + dy - 9, left + wide, py + dy + 1)
            inside = box[0] >= x.start and box[2] <= x.end and box[1] >= y.end and box[3] <= y.start
            if inside and not any(a[0] < box[2] and box[0] < a[2] and a[1] < box[3] and box[1] < a[3] for a in taken):
                taken.append(box)
                if (dx, dy, anchor) in _FAR:
                    parts.append(f'<path class="axis" d="M{px:.1f} {py:.1f}L{px + dx:.1f} {py + dy - 3:.1f}"/>')
                parts.append(text(px + dx, py + dy, words, anchor, "small"))
                break
    return "".join(parts)


def number(value: float) -> str:
    """
    >>> number(0.5), number(1e6), number(-20.0), number(0.0)
    ('0.5', '1e6', '−20', '0')
    """
    if value == 0:
        return "0"
    words = f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-") if not 1e-3 <= abs(value) < 1e5 else f"{value:g}"
    return words.replace("-", "−")
