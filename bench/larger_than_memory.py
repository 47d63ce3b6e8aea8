"""A model larger than the memory allowed: written to disk, then compressed with a method that calibrates.

The limit is RLIMIT_DATA, which counts every private writable page, touched or not; pages mapped from files, the source
and the result among them, don't count, since the system can drop them. The peak that the report tells counts both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scrimp import models

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "intermediate_size": 2816,
    "num_hidden_layers": 32, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 16000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
}  # fmt: skip


def write_model(directory: Path) -> int:
    """Random float16 weights, one tensor in memory at a time; returns the bytes of the weights."""
    _, program = models.build(CONFIG)
    shapes: dict[str, tuple[int, ...]] = {**program.matrices, **{n: (size,) for n, size in program.vectors.items()}}
    header: dict[str, object] = {}
    at = 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = rng.standard_normal(shape, np.float32) * (shape[-1] ** -0.5 if len(shape) == 2 else 0) + (
                len(shape) == 1
            )
            file.write(values.astype("<f2").tobytes())
    words = {f"w{i}": i for i in range(CONFIG["vocab_size"])}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(CONFIG))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return at


def random_words(count: int) -> Iterator[str]:
    yield from (f"w{i}" for i in np.random.default_rng(1).integers(0, CONFIG["vocab_size"], count))


def _limit(size_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))
    resource.setrlimit(resource.RLIMIT_STACK, (2**20, 2**20))  # of every thread; untouched stacks count too


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="gptq")
    parser.add_argument("--windows", type=int, default=6, help="of 512 tokens")
    parser.add_argument("--share", type=float, default=1.5, help="the model is this many times the limit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "model").mkdir()
        model_bytes = write_model(here / "model")
        (here / "text.txt").write_text(" ".join(random_words(512 * options.windows)))
        limit = int(model_bytes / options.share)
        command = [sys.executable, "-c", "from scrimp.cli.main import script; script()", "compress",
                   str(here / "model"), "-o", str(here / "out"), "--format", "int4:g64", "--method", options.method,
                   "--calibrate", str(here / "text.txt"), "--calibrate-windows", str(options.windows), "--no-loss",
                   "--json"]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=False,
            preexec_fn=lambda: _limit(limit),
        )  # fmt: skip
        seconds = time.perf_counter() - began
        result: dict[str, object] = {"model_bytes": model_bytes, "limit_bytes": limit, "exit_code": done.returncode}
        if done.returncode == 0:
            report = json.loads(done.stdout)
            result |= {name: report[name] for name in ("file_bytes", "seconds", "rss_peak_bytes", "notes")}
        print(f"{model_bytes / 1e6:.0f} MB of weights, {limit / 1e6:.0f} MB of memory: "
              f"{'done' if done.returncode == 0 else 'FAILED'} in {seconds:.0f} s")  # fmt: skip
        print(json.dumps(result))
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
