"""What int8 activations and a smaller key/value cache cost on SmolLM2-135M with its own weights: a loss for each.

    python bench/activations.py ../shared/data/text/wikitext2_valid.txt --max-tokens 4096

The reference has the same weights in float32 arithmetic, with a cache of float32: whatever differs is the activations'
or the cache's doing. Fixed scales are found on the text that ships with scrimp.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import scrimp
from scrimp import models
from scrimp.calibrate import ranges
from scrimp.measure.evaluate import evaluate_all
from scrimp.quantize.ranges import ranges_wanted
from scrimp.quantize.wish import Wish
from scrimp.sources import open_source
from scrimp.store import activations

DYNAMIC = (32, 64, 192, "token")
CACHES = ("f16", "int8", "int4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=32, help="of 512 tokens, for the fixed scales")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="activations-") as folder, ExitStack() as stack:
        keep = Path(folder) / "keep"
        scrimp.compress(options.model, keep, keep=True)
        variants: list[tuple[str, str, Path, dict[str, Any]]] = [("float32", "f32", keep, {"arithmetic": "f32"})]
        variants += [("float32", kv, keep, {"arithmetic": "f32", "kv": kv}) for kv in CACHES]
        variants += [(f"int8, dynamic, {block}", "f16", keep, {"activation_block": block}) for block in DYNAMIC]
        variants += [("int8, dynamic, 32", kv, keep, {"kv": kv}) for kv in CACHES[1:]]
        fixed = with_fixed_scales(keep, options.windows)
        variants += [(f"int8, static, {rule}", "f16", path, {}) for rule, path in fixed.items()]
        context = options.context
        opened = [stack.enter_context(scrimp.open(path, context=context, **how)) for _, _, path, how in variants]
        found = evaluate_all(opened, options.text, reference=opened[0], context=context, max_tokens=options.max_tokens)
        print("| activations | cache | bytes per token of context | perplexity | KL mean | KL 99 % | same top token |")
        print("|---|---|---:|---:|---:|---:|---:|")
        rows = []
        for (name, kv, _, _), model, evaluation in zip(variants, opened, found, strict=True):
            row = evaluation.to_json()
            print(f"| {name} | {kv} | {model.kv_bytes_per_token:,} | {row['ppl']:.2f} | {row['kl_mean']:.5f} | "
                  f"{row['kl_p99']:.4f} | {100 * row['same_top']:.1f} % |", flush=True)  # fmt: skip
            rows.append({"activations": name, "cache": kv, "bytes_per_token": model.kv_bytes_per_token, **row})
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        print(json.dumps({"text": options.text.name, "isa": opened[0].isa, "commit": commit.stdout.strip(),
                          "windows": options.windows, "rows": rows}))  # fmt: skip


def with_fixed_scales(store: Path, windows: int) -> dict[str, Path]:
    """Rule → the same weights beside scales found by it; the text runs through the network once for all."""
    with open_source(store) as source:
        wanted = ranges_wanted(source, Wish(keep=True, activations="static", calibrate_windows=windows))
        assert wanted is not None
        _, program = models.build(source.config)
        vectors = {name: np.asarray(source.read(name), np.float32) for name in program.vectors}
        seen = ranges.measure(program, source.read, vectors, wanted.windows)
    found = {}
    for rule in ranges.RULES:
        found[rule] = store.with_name(rule)
        shutil.copytree(store, found[rule], copy_function=os.link)
        config = json.loads((store / "config.json").read_text())
        config["quantization_config"]["activations"] = activations.document(rule, ranges.scales_of(seen, rule))
        (found[rule] / "config.json").unlink()
        (found[rule] / "config.json").write_text(json.dumps(config))
    return found


if __name__ == "__main__":
    main()
