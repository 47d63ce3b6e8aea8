"""How fast the coder is: codes per second of one core, for the alphabets of the formats, by the number of tables.

    python bench/packing.py

Codes are rounded normal numbers of a spread per row and column, as the model of the coder expects them. The best of
seven runs; one thread, and its own time, not the clock's; decoding ends in tile planes.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable

import numpy as np

from scrimp import _core
from scrimp.formats import contexts

ROWS = COLS = 1536
#: Levels, the planes their codes are packed in, and the spread of the codes.
ALPHABETS = ((3, (0,), 0.6), (4, (2,), 0.8), (16, (4,), 2.3), (64, (4, 2), 6.0), (256, (8,), 20.0))


def seconds(call: Callable[[], object]) -> float:
    found = []
    for _ in range(7):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return min(found)


def main() -> None:
    generator = np.random.default_rng(0)
    rows = []
    print(
        "| levels | tables | bits per code | encode, M/s | decode, M/s | model, M/s |\n|---:|---:|---:|---:|---:|---:|"
    )
    for levels, widths, std in ALPHABETS:
        for uneven in (0.0, 0.5):
            by_row, by_col = (np.exp2(generator.standard_normal(side) * uneven) for side in (ROWS, COLS))
            numbers = generator.standard_normal((ROWS, COLS)) * std * by_row[:, None] * by_col
            codes = np.clip(np.rint(numbers + levels // 2), 0, levels - 1).astype(np.uint8)
            found = contexts.choose(codes, levels)
            arguments = (found.row_class, found.col_class, found.tables, found.frequencies,
                         contexts.segment_rows(ROWS, COLS))  # fmt: skip
            stream, ends = _core.rans_encode(codes, *arguments)
            calls = {
                "encode": lambda codes=codes, a=arguments: _core.rans_encode(codes, *a),
                "decode": lambda s=stream, e=ends, a=arguments, w=widths: _core.rans_decode(s, e, (ROWS, COLS), *a, w),
                "model": lambda codes=codes, levels=levels: contexts.choose(codes, levels),
            }
            rates = {name: codes.size / seconds(call) / 1e6 for name, call in calls.items()}
            bits = 8 * (len(stream) + len(found.side())) / codes.size
            print(
                f"| {levels} | {len(found.stored)} | {bits:.3f} "
                f"| {rates['encode']:.0f} | {rates['decode']:.0f} | {rates['model']:.0f} |"
            )
            rows.append({"levels": levels, "tables": len(found.stored), "bits": bits, **rates})
    print(json.dumps({"machine": platform.processor() or platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
