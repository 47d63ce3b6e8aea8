"""Many networks in one program on this desk, with every check a compiler has."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np

from scrimp.export.firmware import c_source
from scrimp.export.firmware.memory import arena_of

WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"]
CHECKED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def run_all(directory: Path, cases, pictures):
    """``cases``: (program, stages, packings); the logits of each for its pictures."""
    runtime = Path(str(files("scrimp.export.firmware"))) / "runtime"
    sources = [str(path) for path in sorted(runtime.glob("*.c"))]
    for i, (program, stages, packings) in enumerate(cases):
        place = directory / f"net{i}"
        place.mkdir()
        arena = arena_of(program, stages, packings)
        (place / "model.h").write_text(c_source.header(program, arena))
        renamed = "".join(f"#define model_{name} model_{name}_{i}\n" for name in ("run", "arena"))
        (place / "model.c").write_text(renamed + c_source.source(program, stages, packings, arena))
        (place / "go.c").write_text(f'{renamed}#include "model.h"\n{_go(i)}')
        sources += [str(place / "model.c"), str(place / "go.c")]
    (directory / "main.c").write_text(_main(len(cases)))
    objects = []
    for path in [*sources, str(directory / "main.c")]:
        objects.append(str(directory / f"{len(objects)}.o"))
        flags = [*WARNINGS, *CHECKED, f"-I{runtime}", f"-I{Path(path).parent}"]
        subprocess.run(["cc", *flags, "-c", path, "-o", objects[-1]], check=True)
    subprocess.run(["cc", *CHECKED, *objects, "-o", str(directory / "all")], check=True)
    stream = b"".join(len(seen).to_bytes(4, "little") + seen.tobytes() for seen in pictures)
    done = subprocess.run([str(directory / "all")], input=stream, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found, at = [], 0
    for (program, _, _), seen in zip(cases, pictures, strict=True):
        size = 4 * program.classes * len(seen)
        found.append(np.frombuffer(done.stdout[at : at + size], "<i4").reshape(len(seen), -1))
        at += size
    assert at == len(done.stdout)
    return found


def _go(i: int) -> str:
    return f"""\
#include <stdio.h>
void go_{i}(int count);
void go_{i}(int count)
{{
    while (count-- > 0) {{
        if (fread(model_picture, 1, MODEL_PICTURE, stdin) != MODEL_PICTURE)
            return;
        fwrite(model_run(), 4, MODEL_LOGITS, stdout);
    }}
}}
"""


def _main(count: int) -> str:
    names = [f"go_{i}" for i in range(count)]
    declared = "\n".join(f"void {name}(int count);" for name in names)
    return f"""\
#include <stdint.h>
#include <stdio.h>
{declared}
static void (*const all[])(int) = {{{", ".join(names)}}};
int main(void)
{{
    unsigned i;
    for (i = 0; i < {count}; i++) {{
        int32_t pictures;
        if (fread(&pictures, 4, 1, stdin) != 1)
            return 1;
        all[i](pictures);
    }}
    return 0;
}}
"""
