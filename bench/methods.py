"""The table of methods: each on each format, with KL, same top token, perplexity, file bytes and seconds.

    python bench/methods.py ../shared/data/text/wikitext2_valid.txt -o methods/ [--only '*int3:g64*'] [--sweep TOML]

The sweep is bench/methods.toml. All cells share one measurement of the network (about 1 GB below -o until the end);
what is finished is in the directory of -o, and a second run continues.
``scrimp compare --sweep bench/methods.toml --text … -o methods/`` does the same, and draws it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from scrimp.measure.windows import read_text
from scrimp.sizes import format_seconds
from scrimp.sweep.cell import Result
from scrimp.sweep.file import read
from scrimp.sweep.journal import Journal
from scrimp.sweep.run import Told, run

HERE = Path(__file__).parent


def measured(options: argparse.Namespace) -> list[Result]:
    """The results of the sweep, or of those of its cells that ``--only`` matches."""
    sweep = read(options.sweep)
    cells = tuple(cell for cell in sweep.cells if fnmatchcase(cell.name, options.only))
    sweep = replace(sweep, cells=cells, setting=replace(sweep.setting, text=read_text(options.text)))
    with Journal(options.out / "sweep.jsonl") as journal:
        return run(sweep, journal, scratch=options.out / "unfinished", workers=options.workers, tell=tell)


def tell(told: Told) -> None:
    left = format_seconds(told.seconds_left) if told.seconds_left == told.seconds_left else "unknown time"
    print(f"{told.done}/{told.cells} {told.result.name} {told.result.error}; {left} left", file=sys.stderr, flush=True)


def table(results: Sequence[Result]) -> str:
    """Rows, as Markdown."""
    lines = [
        "| cell | KL mean | same top token | perplexity | file bytes | seconds |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        loss = result.loss
        if loss is None:
            lines.append(f"| {result.name} | {result.error} | | | | |")
            continue
        ppl = "BROKEN" if loss.broken else f"{loss.ppl:.2f} ± {loss.ppl_se:.2f}"
        lines.append(
            f"| {result.name} | {loss.kl_mean:.4f} ± {loss.kl_se:.4f} | {100 * loss.same_top:.1f} % | {ppl} "
            f"| {result.file_bytes:,} | {result.seconds:.1f} |"
        )
    return "\n".join(lines)


def grid(results: Sequence[Result]) -> str:
    """KL of methods × formats, as Markdown; of a sweep whose cells are called ``FORMAT METHOD``."""
    found = {tuple(result.name.split(" ", 1)): result for result in results}
    formats = list(dict.fromkeys(name[0] for name in found))
    methods = list(dict.fromkeys(name[-1] for name in found))
    lines = [f"| KL | {' | '.join(formats)} |", f"|---|{'---:|' * len(formats)}"]
    for method in methods:
        cells = []
        for format in formats:
            result = found.get((format, method))
            loss = None if result is None else result.loss
            cells.append("–" if loss is None else f"{loss.kl_mean:.3f}{' BROKEN' if loss.broken else ''}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def parse(description: str, sweep: Path) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="to measure on")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the directory that remembers")
    parser.add_argument("--only", default="*", metavar="GLOB", help="cells whose name matches")
    parser.add_argument("--sweep", type=Path, default=sweep)
    parser.add_argument("--workers", help="as of scrimp compare")
    return parser.parse_args()


def main() -> None:
    options = parse(__doc__ or "", HERE / "methods.toml")
    results = measured(options)
    print(f"{grid(results)}\n\n{table(results)}")
    print(json.dumps({"text": options.text.name, "rows": [result.to_json() for result in results]}))


if __name__ == "__main__":
    main()
