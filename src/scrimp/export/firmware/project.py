"""The directory that is written: sources, runtime, Makefile and README; complete under its name, or not there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from scrimp.errors import Refused
from scrimp.export.firmware.targets import Target

#: The file of each kernel; the other files of runtime/ are always there.
KERNEL_FILES = {
    "W8": "product_w8.c",
    "W4": "product_pairs.c",
    "T2": "product_pairs.c",
    "T5": "product_t5.c",
    "T19": "product_t19.c",
    "B1": "product_bits.c",
    "P2": "product_bits.c",
    "P4": "product_bits.c",
    "P8": "product_bits.c",
}
_RUNTIME = (
    "scrimp.h",
    "multiply.h",
    "tables.h",
    "nines.c",
    "pixels.c",
    "linear.c",
    "conv.c",
    "requantize.c",
    "pool.c",
    "add.c",
)
_BOARD = ("io.h", "io_number.c", "main.c", "stream.c")
_CHIP = ("io_semihosting.c", "memory.c", "chip.ld")

_MAKEFILE = """\
# Written by scrimp for %(target)s. make: build. make run: the test vectors. make stream: pictures.bin to logits.bin.
CC := %(compiler)s
SIZE := %(size)s
TARGET_FLAGS := %(flags)s
WARNINGS := -Wall -Wextra
# A byte of the arena is int8, int16 or int32 at different times, hence no-strict-aliasing.
CFLAGS := -std=c99 -Os -fno-strict-aliasing -ffunction-sections -fdata-sections $(WARNINGS)
# The inner loops.
KERNEL_FLAGS := -O2
%(link)s
RUNTIME := $(patsubst runtime/%%.c,build/%%.o,$(wildcard runtime/*.c))
BOARD := %(board)s
COMMON := build/model.o $(RUNTIME) $(BOARD)
ALL_FLAGS = $(TARGET_FLAGS) $(CFLAGS) -I. -Iruntime -Iboard

all: build/firmware.elf build/stream.elf

# Files to read and write take more code than a chip's program has: only QEMU's flash limits that.
build/stream.elf: FLASH_SIZE := %(most)d
build/%%.elf: build/main_%%.o $(COMMON)
	$(CC) $(TARGET_FLAGS) $(CFLAGS) -o $@ $^ $(LINK)
build/main_firmware.o: board/main.c model.h vectors.h | build
	$(CC) $(ALL_FLAGS) -c -o $@ $<
build/main_stream.o: board/stream.c model.h | build
	$(CC) $(ALL_FLAGS) -c -o $@ $<
build/product_%%.o: runtime/product_%%.c | build
	$(CC) $(ALL_FLAGS) $(KERNEL_FLAGS) -c -o $@ $<
build/requantize.o: runtime/requantize.c | build
	$(CC) $(ALL_FLAGS) $(KERNEL_FLAGS) -c -o $@ $<
build/%%.o: runtime/%%.c | build
	$(CC) $(ALL_FLAGS) -c -o $@ $<
build/%%.o: board/%%.c | build
	$(CC) $(ALL_FLAGS) -c -o $@ $<
build/%%.o: board/%%.S | build
	$(CC) $(TARGET_FLAGS) -c -o $@ $<
build/model.o: model.c model.h | build
	$(CC) $(ALL_FLAGS) -c -o $@ $<
build:
	mkdir -p build

run: build/firmware.elf
	%(run)s
stream: build/stream.elf
	%(stream)s
size: build/firmware.elf
	$(SIZE) $<
clean:
	rm -rf build

.PHONY: all run stream size clean
.SECONDARY:
"""
_LINK = """\
TARGET_FLAGS += -ffreestanding -DCHIP
# Where memory lies: this is QEMU's machine. Your chip's data sheet has its addresses.
FLASH_BASE := %(flash_base)#x
RAM_BASE := %(ram_base)#x
FLASH_SIZE := %(flash)d
RAM_SIZE := %(ram)d
MIN_STACK := %(stack)d
LINK = -nostdlib -nostartfiles -Wl,--gc-sections -Wl,--no-warn-rwx-segments -T board/chip.ld \\
  -Wl,--defsym=flash_base=$(FLASH_BASE),--defsym=flash_size=$(FLASH_SIZE),--defsym=ram_base=$(RAM_BASE) \\
  -Wl,--defsym=ram_size=$(RAM_SIZE),--defsym=min_stack=$(MIN_STACK) -lgcc
QEMU := %(qemu)s -display none -monitor none -serial none -chardev stdio,id=out \\
  -semihosting-config enable=on,target=native,chardev=out $(QEMU_MORE)
"""


def makefile(target: Target, flash: int, ram: int, stack: int) -> str:
    if not target.chip:
        link, run, stream, board = "LINK :=", "./build/firmware.elf", "./build/stream.elf", "build/io_host.o"
    else:
        link = _LINK % {
            "flash_base": target.flash_base,
            "ram_base": target.ram_base,
            "flash": flash,
            "ram": ram,
            "stack": stack,
            "qemu": " ".join(target.qemu),
        }
        run = "$(QEMU) -kernel build/firmware.elf </dev/null"
        stream = "$(QEMU) -kernel build/stream.elf </dev/null"
        board = f"build/{Path(target.start).stem}.o build/io_semihosting.o build/memory.o"
    return _MAKEFILE % {
        "target": target.name,
        "most": target.flash_most,
        "compiler": target.compiler,
        "size": f"{target.compiler.removesuffix('gcc')}size" if target.chip else "size",
        "flags": " ".join(target.flags),
        "link": link,
        "run": run,
        "stream": stream,
        "board": f"{board} build/io_number.o",
    }


def check_place(out: Path) -> None:
    """Refused where ``out`` exists or has no place to be."""
    if out.exists() or out.is_symlink():
        raise Refused(f"{out} exists.", hint="choose another -o, or remove it")
    if not out.absolute().parent.is_dir():
        raise Refused(
            f"{out.parent} does not exist, so {out.name} cannot be written there.", hint=f"mkdir -p {out.parent}"
        )


def write(out: Path, target: Target, packings: set[str], texts: Mapping[str, str]) -> None:
    """``texts``: file name → what is in it. Refused where ``out`` exists."""
    check_place(out)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        scratch.chmod(0o755)
        for name, text in texts.items():
            (scratch / name).write_text(text, "utf-8")
        _copy("runtime", scratch, [*_RUNTIME, *sorted({KERNEL_FILES[name] for name in packings})])
        _copy("runtime/board", scratch, [*_BOARD, *((*_CHIP, target.start) if target.chip else ("io_host.c",))])
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(folder: str, scratch: Path, names: list[str]) -> None:
    to = scratch / Path(folder).name
    to.mkdir()
    for name in names:
        (to / name).write_bytes(files("scrimp.export.firmware").joinpath(folder, name).read_bytes())
