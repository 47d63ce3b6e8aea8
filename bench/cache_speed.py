"""Decoding behind a long context, by format of the key/value cache. The formats take turns in one process.

python bench/cache_speed.py --context 2048 --decode 16 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
from statistics import median
from time import perf_counter

import scrimp
from scrimp.model import Model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--context", type=int, default=2048, help="tokens before the first that is timed")
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", nargs="+", default=["f16", "int8", "int4"])
    options = parser.parse_args()
    opened = {
        kv: scrimp.open(options.model, kv=kv, threads=options.threads, context=options.context + options.decode)
        for kv in options.formats
    }
    for model in opened.values():
        model.step([(7919 * i) % model.vocab_size for i in range(options.context)], 0)
        decode_s(model, options.context, options.decode)
    seconds: dict[str, list[tuple[float, float]]] = {kv: [] for kv in options.formats}
    for _ in range(options.rounds):
        for kv, model in opened.items():
            seconds[kv].append(decode_s(model, options.context, options.decode))
    print("| cache | bytes per token of context | decode, tokens/s | ms per token | of it attention, ms |")
    print("|---|---:|---:|---:|---:|")
    rows = []
    for kv, model in opened.items():
        whole, attention = (1000 * median(times) / options.decode for times in zip(*seconds[kv], strict=True))
        rows.append({"kv": kv, "bytes_per_token": model.kv_bytes_per_token, "ms": whole, "attention_ms": attention})
        print(f"| {kv} | {model.kv_bytes_per_token:,} | {1000 / whole:.1f} | {whole:.2f} | {attention:.2f} |")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    some = opened[options.formats[0]]
    print(json.dumps({"isa": some.isa, "threads": some.threads, "context": options.context,
                      "commit": commit.stdout.strip(), "rows": rows}))  # fmt: skip


def decode_s(model: Model, context: int, count: int) -> tuple[float, float]:
    """Seconds of decoding ``count`` tokens at positions ``context …``, and those of their attention."""
    model.engine.reset_profile()
    begin = perf_counter()
    for position in range(context, context + count):
        model.step([position % model.vocab_size], position)
    whole = perf_counter() - begin
    return whole, sum(time.seconds for time in model.engine.profile() if time.op.kind == "attention")


if __name__ == "__main__":
    main()
