"""What ``make demo`` runs: pull a small language model, make it smaller three times, measure everything, ask something.

Every step is a command that a user could type, and is shown. What is finished is remembered in ``demo/`` with a
fingerprint of what it was made from, this version of scrimp included; a second run does nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

MODEL = "smollm2-135m"
QUESTION = "Give me three tips for better sleep."

#: Directory and flags of each size. The source stores 4 bits with a scale and a minimum per 32 weights, and its
#: embedding in 8 bits: `int4z:g32` keeps the first and only shrinks the second.
SIZES = {
    "int8": ("--format", "int8:g64"),
    "int4": ("--format", "int4z:g32", "--embedding", "int6:g64"),
    "int3": ("--format", "int3z:g32", "--embedding", "int6:g64"),
}
MEASURE = ("--max-tokens", "8192", "--rounds", "3")

COLUMNS = (
    ("model", 14), ("file bytes", 12), ("bits/weight", 11), ("perplexity", 14), ("KL mean", 8), ("same top", 8),
    ("prefill tok/s", 13), ("decode tok/s", 12), ("peak memory", 11),
)  # fmt: skip


def main() -> int:
    begin = perf_counter()
    where = Path(__file__).resolve().parent.parent / "demo"
    where.mkdir(exist_ok=True)
    done = Done.read(where / "done.json")
    source = scrimp_json("pull", MODEL)
    origin = [source["sha256"], package_fingerprint()]
    for name, flags in SIZES.items():
        key = fingerprint(origin, flags)
        out = where / name
        if done.get(name, key) is None or not out.exists():
            shutil.rmtree(out, ignore_errors=True)
            done.put(name, key, scrimp_json("compress", MODEL, "-o", shown(out), *flags, "--no-loss"))
    models = [MODEL, *(shown(where / name) for name in SIZES)]
    key = fingerprint(origin, SIZES, MEASURE)
    found = done.get("compare", key)
    if found is None:
        found = scrimp_json("compare", *models, "--reference", MODEL, *MEASURE)
        done.put("compare", key, found)
    print_rows(found["rows"])
    status = subprocess.run(
        show("run", shown(where / "int4"), QUESTION, "--temperature", "0", "--max-tokens", "96"), check=False
    ).returncode
    print(f"\n{perf_counter() - begin:.0f} s. More: scrimp --help")
    return status


@dataclass
class Done:
    """Results by step, each with the fingerprint of what it was made from."""

    path: Path
    steps: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Done:
        try:
            return cls(path, json.loads(path.read_text()))
        except (OSError, ValueError):
            return cls(path, {})

    def get(self, step: str, key: str) -> Any:
        """The result, or None when there is none of this fingerprint."""
        found = self.steps.get(step, {})
        return found.get("result") if found.get("key") == key else None

    def put(self, step: str, key: str, result: Any) -> None:
        self.steps[step] = {"key": key, "result": result}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.steps))
        partial.replace(self.path)


def fingerprint(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def package_fingerprint() -> str:
    """Of every file of the installed package: another version may measure something else."""
    spec = find_spec("scrimp")
    assert spec is not None
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations or ():
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".so", ".toml", ".txt"):
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def show(*arguments: str) -> list[str]:
    """The command, printed as a user would type it."""
    print("\n$ scrimp " + " ".join(f"'{word}'" if " " in word else word for word in arguments), flush=True)
    installed = Path(sys.executable).with_name("scrimp")
    return [str(installed if installed.exists() else shutil.which("scrimp") or "scrimp"), *arguments]


def scrimp_json(*arguments: str) -> Any:
    """Run one command with ``--json``; its progress stays visible, its errors too."""
    done = subprocess.run([*show(*arguments), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def shown(path: Path) -> str:
    """Short where it can be."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The one table."""
    print()
    print("  ".join(name.ljust(width) if i == 0 else name.rjust(width) for i, (name, width) in enumerate(COLUMNS)))
    for row in rows:
        loss = "BROKEN" if row["broken"] else f"{row['ppl']:.2f} ± {row['ppl_se']:.2f}"
        cells = (
            row["model"], f"{row['file_bytes']:,}", f"{row['bits_per_weight']:.2f}", loss, f"{row['kl_mean']:.4f}",
            f"{100 * row['same_top']:.1f} %", f"{row['prefill_tokens_per_s']['median']:.0f}",
            f"{row['decode_tokens_per_s']['median']:.1f}", f"{row['rss_peak_bytes'] / 1e6:.1f} MB",
        )  # fmt: skip
        print(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, (_, width)) in enumerate(zip(cells, COLUMNS, strict=True))
            )
        )
    first = rows[0]
    ceiling = max(row["memory_read_gb_per_s"] for row in rows)
    print(
        f"\nKL and same top token against {first['reference']} in float32, over {first['tokens']:,} tokens of the text "
        f"that ships with scrimp.\nThe original runs with int8 activations too: its own KL is what they cost. "
        f"{first['threads']} threads, {first['isa']}; memory reads {ceiling:.1f} GB/s.\n"
        f"The original already stores 4 bits: 8 bits are larger and lose nothing more, 4 bits keep its blocks."
    )


if __name__ == "__main__":
    sys.exit(main())
