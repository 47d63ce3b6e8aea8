"""Test vectors: noise that ``main.c`` makes again by itself, or pictures that are stored; and their logits."""

from __future__ import annotations

import numpy as np

from scrimp.export.firmware.c_arrays import array
from scrimp.integer.program import IntegerProgram
from scrimp.integer.reference import U8, run

#: George Marsaglia, "Xorshift RNGs", 2003: the triple 13, 17, 5; any seed but 0.
SEED = 2463534242

#: Code of main.c that makes noise and compares logits: 128 bytes on RV32EC, the most of all targets.
COMPARING = 136


def noise(program: IntegerProgram, count: int) -> U8:
    """The highest byte of each number of xorshift32: the same in C, without a multiplication."""
    image, state = program.buffers[0], SEED
    found = np.empty(count * image.size, np.uint8)
    for i in range(found.size):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        found[i] = state >> 24
    return found.reshape(count, image.height, image.width, image.channels)


def header(program: IntegerProgram, pictures: U8 | None, count: int) -> str:
    """``vectors.h``; without ``pictures``, of noise."""
    seen = noise(program, count) if pictures is None else pictures[:count]
    lines = [
        "/* Written by scrimp: pictures, and the logits the desk computed for them. */",
        f"#define VECTORS {len(seen)}",
    ]
    if pictures is None:
        lines.append(f"#define VECTOR_SEED {SEED}u")
    elif len(seen):
        lines.append(array("vector_pictures", seen.reshape(len(seen), -1)))
    if len(seen):
        lines.append(array("vector_logits", run(program, seen)))
    return "\n".join(lines)


def vector_bytes(program: IntegerProgram, stored: bool) -> int:
    """In flash, of one, beside the code that compares them."""
    return 4 * program.classes + (-(-program.buffers[0].size // 4) * 4 if stored else 0)
