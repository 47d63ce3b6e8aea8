"""What can be built for: a compiler, a memory map, and the machine of QEMU that has both."""

from __future__ import annotations

from dataclasses import dataclass

from scrimp.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Target:
    """``flash_most`` and ``ram_most`` are what QEMU's machine has; a chip has what --flash and --ram say."""

    name: str
    compiler: str
    flags: tuple[str, ...] = ()
    start: str = ""  #: the file of board/ that runs before main; none on a desk
    qemu: tuple[str, ...] = ()
    flash_base: int = 0
    ram_base: int = 0x20000000
    flash_most: int = 4 << 20
    ram_most: int = 4 << 20

    @property
    def chip(self) -> bool:
        return bool(self.start)


def _arm(name: str, machine: tuple[str, ...], **where: int) -> Target:
    return Target(
        name,
        "arm-none-eabi-gcc",
        ("-mthumb", f"-mcpu={name}"),
        "start_arm.c",
        ("qemu-system-arm", "-M", *machine),
        **where,
    )


def _riscv(name: str, abi: str, cpu: str) -> Target:
    return Target(
        name,
        "riscv64-unknown-elf-gcc",
        (f"-march={name}", f"-mabi={abi}", "-msmall-data-limit=0"),
        "start_riscv.S",
        ("qemu-system-riscv32", "-M", "virt", "-bios", "none", "-cpu", cpu),
        flash_base=0x80000000,
        ram_base=0x80800000,
    )


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("host", "cc"),
        _riscv("rv32ec", "ilp32e", "rv32,e=on,i=off,m=off,a=off,f=off,d=off,h=off"),
        _riscv("rv32imc", "ilp32", "rv32,a=off,f=off,d=off"),
        _arm("cortex-m0", ("lm3s6965evb", "-cpu", "cortex-m0"), flash_most=256 << 10, ram_most=64 << 10),
        _arm("cortex-m3", ("mps2-an385",)),
        _arm("cortex-m4", ("mps2-an386",)),
        _arm("cortex-m33", ("mps2-an505",), flash_base=0x10000000, ram_base=0x38000000),
    )
}


def target_named(name: str) -> Target:
    """``m3`` is ``cortex-m3``."""
    found = TARGETS.get(name) or TARGETS.get(f"cortex-{name}")
    if found is None:
        known = ", ".join(TARGETS)
        raise UsageError(f"'{name}' is no target.", hint=nearest(name, list(TARGETS)) or f"targets are {known}")
    return found
