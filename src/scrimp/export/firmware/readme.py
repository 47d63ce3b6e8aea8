"""The README beside exported firmware."""

from __future__ import annotations

from scrimp.export.firmware.report import FirmwareReport
from scrimp.integer.program import IntegerProgram

_TEXT = """\
# A network of pictures for %(target)s

Written by scrimp. C99 without allocation, floating point or 64-bit products; the logits are those of the desk, bit for
bit.

    make            build/firmware.elf and build/stream.elf
    make run        %(run)s
    make stream     pictures.bin (%(picture)s bytes each) to logits.bin (%(classes)s int32 each)
    make size       what it takes, as linked

%(built)s

## In your program

Take `model.c`, `model.h` and `runtime/`. Write a picture of %(shape)s, a byte each, to `model_picture`, and call
`model_run()`: it returns %(classes)s logits, and the class is the place of the largest. The picture is used up, and the
logits stay until the next is written. Bytes are those of the pictures it was trained with (MNIST: 0 is black, the digit
white), not normalized; larger pictures were shrunk by taking the mean of the rectangle that each new pixel covers.

Compile with `-fno-strict-aliasing`: the arena holds int8, int16 and int32 at different times. The compiler must shift
negative numbers arithmetically; `runtime/scrimp.h` does not compile otherwise. `board/` is for tests: it starts the
chip, and talks to QEMU or a debugger by semihosting.

## In numbers

| | bytes | |
|---|---|---|
| weights | %(weights)s | |
| multipliers, offsets, structures | %(parameters)s | |
| code | %(code)s | start-up and test program included, estimated |
| flash | %(flash)s | %(flash_limit)s |
| arena | %(arena)s | exact |
| RAM | %(ram)s | with %(stack)s bytes for the stack%(ram_limit)s |

About %(instructions)s instructions per picture (instructions, not cycles; estimated from counts under QEMU).

| operation | packing | weights | bytes | instructions | |
|---|---|---|---|---|---|
%(layers)s

Packings: %(packings)s.
"""


#: What note 011 calls them.
_PACKINGS = {
    "T19": "19 trits in 32 bits, tables of 27 and 81 sums",
    "T5": "five trits in a byte, a table of 243 sums",
    "B1": "a bit each, tables of 16 sums",
    "T2": "two bits each, two rows in one product",
    "W4": "four bits each, two rows in one product",
    "P2": "two planes of bits, read like B1",
    "P4": "four planes of bits, read like B1",
    "P8": "eight planes of bits, read like B1",
    "W8": "a byte each",
}


def readme(program: IntegerProgram, report: FirmwareReport) -> str:
    image = program.buffers[0]
    rows = [
        f"| `{_plain(layer.name)}` | {layer.packing or '-'} | {layer.weights:,} | {layer.weight_bytes:,} "
        f"| {layer.instructions:,} | {layer.reason} |"
        for layer in report.layers
    ]
    packings = sorted({layer.packing for layer in report.layers} & _PACKINGS.keys())
    built = (
        "Needs cc and make."
        if report.target == "host"
        else "Needs make, the compiler and the QEMU that the Makefile names; your chip's addresses go there too."
    )
    return _TEXT % {
        "target": report.target,
        "built": built,
        "picture": image.size,
        "classes": program.classes,
        "shape": f"{image.height} rows of {image.width} pixels of {_count(image.channels, 'channel')}",
        "weights": f"{report.weight_bytes:,}",
        "parameters": f"{report.parameter_bytes:,}",
        "code": f"{report.code_bytes:,}",
        "flash": f"{report.flash_bytes:,}",
        "arena": f"{report.arena_bytes:,}",
        "ram": f"{report.ram_bytes:,}",
        "stack": report.stack_bytes,
        "flash_limit": "" if report.flash_limit is None else f"of {report.flash_limit:,}",
        "ram_limit": "" if report.ram_limit is None else f", of {report.ram_limit:,}",
        "instructions": f"{report.instructions:,}",
        "layers": "\n".join(rows),
        "run": _run(report.vectors),
        "packings": "; ".join(f"{name}, {_PACKINGS[name]}" for name in packings),
    }


def _run(vectors: int) -> str:
    if not vectors:
        return '"ran": no test vector fits into the flash that is left; compare logits by make stream'
    return f'{_count(vectors, "test vector")}: "passed", status 0'


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _plain(name: str) -> str:
    """Names come from strangers."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name[:60])
