"""A trained network on simulated chips, over a whole set of pictures: every logit beside the reference, and the cost.

python bench/firmware_on_chips.py NET mnist:test@16x16 --data DIR --target rv32ec --flash 16384 --ram 2048 [--most 500]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from scrimp.export.firmware import export_firmware, simulate
from scrimp.export.firmware.targets import target_named
from scrimp.integer.lower import lower
from scrimp.integer.reference import run
from scrimp.pictures.load import load
from scrimp.store.net import open_net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", type=Path)
    parser.add_argument("pictures")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--target", action="append", required=True)
    parser.add_argument("--flash", type=int)
    parser.add_argument("--ram", type=int)
    parser.add_argument("--most", type=int, help="pictures, from the first on")
    asked = parser.parse_args()
    program, seen = lower(*open_net(asked.net)), load(asked.pictures, asked.data)
    pictures, labels = seen.images[: asked.most], seen.labels[: asked.most]
    expected = np.concatenate([run(program, part) for part in np.array_split(pictures, -(-len(pictures) // 100))])
    accuracy = float((expected.argmax(axis=1) == labels).mean())
    for name in asked.target:
        target = target_named(name)
        with tempfile.TemporaryDirectory() as root:
            out = Path(root) / "out"
            report = export_firmware(program, out, target=name, flash=asked.flash, ram=asked.ram)
            simulate.build(out)
            plugin = simulate.plugin_built(out) if target.chip else None
            ran = simulate.stream(out, target, pictures, program.classes, plugin)
            size = simulate.size(out, target)
        print(
            json.dumps(
                {
                    "target": target.name,
                    "pictures": len(pictures),
                    "accuracy": accuracy,
                    "logits_different": int((ran.logits != expected).sum()),
                    "logits": expected.size,
                    "instructions": sum(ran.counts.values()) // len(pictures),
                    "predicted": report.instructions,
                    "flash_bytes": size.flash,
                    "arena_bytes": report.arena_bytes,
                    "ram_used_bytes": None
                    if ran.unused_ram is None
                    else (asked.ram or target.ram_most) - ran.unused_ram,
                    "weight_bytes": report.weight_bytes,
                    "packings": [layer.packing for layer in report.layers if layer.packing],
                }
            )
        )


if __name__ == "__main__":
    main()
