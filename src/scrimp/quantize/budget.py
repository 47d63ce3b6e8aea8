"""A size → a Plan without a text: the widest uniform format whose files fit.

The honest answer where nothing can be measured. With a text, ``spend.py`` spends the bytes where they save most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from scrimp.errors import GoalNotMet
from scrimp.formats import Format, parse
from scrimp.quantize.plan import Plan, Rule, make
from scrimp.sizes import format_bytes
from scrimp.sources.source import Source

WIDTHS = (8, 6, 5, 4, 3, 2)
GROUPS = (32, 64, 128)
#: The ends get no fewer bits than this, and no fewer than the body.
NARROWEST_END = 4


def ladder(embedding: Format | None = None) -> Iterator[tuple[Format, Format]]:
    """Pairs (body, ends), the largest first: by the body's bits, then the bits of the ends, then the size of groups."""
    for bits in WIDTHS:
        ends = [parse(f"int{end}:g64") for end in WIDTHS if end >= max(bits, NARROWEST_END)]
        for end in [embedding] if embedding is not None else ends:
            for group in GROUPS:
                yield parse(f"int{bits}:g{group}"), end


def fit(
    source: Source,
    limit_bytes: int,
    file_bytes: Callable[[Plan], int],
    *,
    method_name: str = "rtn",
    embedding: Format | None = None,
    rules: Iterable[Rule] = (),
) -> Plan:
    """The first Plan of the ladder whose ``file_bytes`` don't exceed the limit; GoalNotMet names the smallest size."""
    rules, smallest = list(rules), None
    for body, end in ladder(embedding):
        plan = make(source, body, method_name=method_name, embedding=end, rules=rules)
        size_bytes = file_bytes(plan)
        if size_bytes <= limit_bytes:
            return plan
        smallest = min(size_bytes, smallest or size_bytes)
    assert smallest is not None
    raise GoalNotMet(
        f"No plan fits {format_bytes(limit_bytes)} ({limit_bytes:,} bytes); the smallest takes {smallest:,} bytes.",
        hint=f"ask for {format_bytes(smallest + 10**5)}, or choose formats with --format, --embedding and --rule",
    )
