"""What rounding costs on SmolLM2-135M: every width at two group sizes, bytes against loss. The table of the README.

    python bench/rounding.py ../shared/data/text/wikitext2_valid.txt --max-tokens 16384

The reference is the original's weights decoded to float32, in float32 arithmetic. All models and the reference walk the
same windows in one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import scrimp
from scrimp.measure.evaluate import evaluate_all
from scrimp.sources.locate import locate

WIDTHS = ("int8", "int6", "int4", "int3", "int2")
GROUPS = ("g32", "g64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--max-tokens", type=int, default=16384)
    options = parser.parse_args()
    original = str(locate(options.model))
    with tempfile.TemporaryDirectory(prefix="rounding-") as folder:
        rows = [("original", original), ("--keep", f"{folder}/keep")]
        reports = {"--keep": scrimp.compress(original, rows[1][1], keep=True)}
        for name in (f"{width}:{group}" for width in WIDTHS for group in GROUPS):
            out = f"{folder}/{name.replace(':', '-')}"
            reports[name] = scrimp.compress(original, out, format=name)
            rows.append((name, out))
        evaluations = evaluate_all(
            [path for _, path in rows], options.text, reference=original, max_tokens=options.max_tokens
        )
    print("| format | file bytes | bits per weight | perplexity | KL mean | KL 99 % | same top token |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    lines = []
    for (name, _), evaluation in zip(rows, evaluations, strict=True):
        found = evaluation.to_json()
        size = reports[name].file_bytes if name in reports else Path(original).stat().st_size
        bits = 8 * size / 134_515_008
        broken = " BROKEN" if found.get("broken") else ""
        print(
            f"| {name} | {size:,} | {bits:.2f} | {found['ppl']:.2f} ± {found['ppl'] * found['nll_se']:.2f}{broken} "
            f"| {found['kl_mean']:.4f} | {found['kl_p99']:.3f} | {100 * found['same_top']:.1f} % |"
        )
        lines.append({"format": name, "file_bytes": size, "bits_per_weight": bits, **found})
    print(json.dumps({"text": options.text.name, "tokens": evaluations[0].perplexity.tokens, "rows": lines}))


if __name__ == "__main__":
    main()
