"""Which option of every item, so that the costs are least and the sizes fit: the multiple-choice knapsack.

Each item's options are thinned to the lower convex hull of (bytes, cost): there every step up buys less per byte than
the one before. Taking the steps of all items by what they buy per byte solves the linear relaxation exactly, and the
step at which the room ends gives its bound. What room is left goes to the best option that still fits, hull or not.

Source: Kellerer, Pferschy, Pisinger 2004, "Knapsack Problems", sections 11.2 and 11.3; Sinha, Zoltners 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store an item: its size, and what it costs in loss."""

    nbytes: int
    cost: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """The option of every item. ``bound``: no allocation of this size can cost less, so ``cost - bound`` is the gap."""

    chosen: tuple[int, ...]
    nbytes: int
    cost: float
    bound: float


@dataclass(frozen=True, slots=True)
class _Step:
    gain: float  #: cost saved per byte
    item: int
    option: int
    nbytes: int
    saved: float


def allocate(items: Sequence[Sequence[Option]], limit_bytes: int) -> Allocation | None:
    """The options of least total cost in ``limit_bytes``, or None where even the smallest don't fit.

    Error
        ``cost - bound`` is at most what the one step saves at which the room ended.

    >>> allocate([[Option(1, 9.0), Option(2, 1.0)], [Option(1, 4.0), Option(2, 3.0)]], 3)
    Allocation(chosen=(1, 0), nbytes=3, cost=5.0, bound=5.0)
    """
    hulls = [_hull(options) for options in items]
    chosen = [hull[0] for hull in hulls]
    used = sum(options[at].nbytes for options, at in zip(items, chosen, strict=True))
    if used > limit_bytes:
        return None
    cost = sum(options[at].cost for options, at in zip(items, chosen, strict=True))
    bound = None
    blocked: set[int] = set()
    for step in _steps(items, hulls):
        if used + step.nbytes <= limit_bytes and step.item not in blocked:
            chosen[step.item] = step.option
            used, cost = used + step.nbytes, cost - step.saved
        else:
            bound = cost - step.gain * (limit_bytes - used) if bound is None else bound
            blocked.add(step.item)
    _fill(items, chosen, limit_bytes - used)
    used = sum(options[at].nbytes for options, at in zip(items, chosen, strict=True))
    cost = sum(options[at].cost for options, at in zip(items, chosen, strict=True))
    return Allocation(tuple(chosen), used, cost, cost if bound is None else min(bound, cost))


def cheapest(items: Sequence[Sequence[Option]], limit_cost: float) -> Allocation | None:
    """The smallest allocation found that costs at most ``limit_cost``; None where no options cost so little."""
    sizes = [(min(o.nbytes for o in options), max(o.nbytes for o in options)) for options in items]
    low, high = sum(least for least, _ in sizes), sum(most for _, most in sizes)
    found = allocate(items, high)
    if found is None or found.cost > limit_cost:
        return None
    while low < high:
        middle = (low + high) // 2
        trial = allocate(items, middle)
        if trial is not None and trial.cost <= limit_cost:
            found, high = trial, min(middle, trial.nbytes)
        else:
            low = middle + 1
    return found


def _hull(options: Sequence[Option]) -> list[int]:
    """Options on the lower convex hull, the smallest first, each cheaper than the one before."""
    order = sorted(range(len(options)), key=lambda i: (options[i].nbytes, options[i].cost))
    kept: list[int] = []
    for i in order:
        if kept and options[i].cost >= options[kept[-1]].cost:
            continue
        while len(kept) >= 2 and _gain(options, kept[-2], kept[-1]) <= _gain(options, kept[-1], i):
            kept.pop()
        kept.append(i)
    return kept


def _gain(options: Sequence[Option], low: int, high: int) -> float:
    return (options[low].cost - options[high].cost) / (options[high].nbytes - options[low].nbytes)


def _steps(items: Sequence[Sequence[Option]], hulls: Sequence[Sequence[int]]) -> list[_Step]:
    steps = [
        _Step(
            _gain(options, low, high), item, high,
            options[high].nbytes - options[low].nbytes, options[low].cost - options[high].cost,
        )
        for item, (options, hull) in enumerate(zip(items, hulls, strict=True))
        for low, high in pairwise(hull)
    ]  # fmt: skip
    return sorted(steps, key=lambda step: (-step.gain, step.item, step.nbytes))


def _fill(items: Sequence[Sequence[Option]], chosen: list[int], room: int) -> None:
    while True:
        best: tuple[float, int, int] | None = None
        for item, options in enumerate(items):
            now = options[chosen[item]]
            for at, option in enumerate(options):
                saved = now.cost - option.cost
                if option.nbytes - now.nbytes <= room and saved > 0 and (best is None or saved > best[0]):
                    best = saved, item, at
        if best is None:
            return
        _, item, at = best
        room -= items[item][at].nbytes - items[item][chosen[item]].nbytes
        chosen[item] = at
