"""``scrimp export``: a compressed network in the form another runtime reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.export.firmware import FirmwareReport


def export(
    model: Annotated[Path, typer.Argument(help="a trained network: what `scrimp train` wrote", metavar="MODEL")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the directory to write; it must not exist")] = None,
    to: Annotated[str, typer.Option(help="firmware: C99 for a chip")] = "firmware",
    target: Annotated[
        str, typer.Option(help="host, rv32ec, rv32imc, cortex-m0, cortex-m3, cortex-m4 or cortex-m33")
    ] = "host",
    flash: Annotated[str | None, typer.Option(help="what the chip has, like 16K: 1024 bytes each")] = None,
    ram: Annotated[str | None, typer.Option(help="what the chip has, like 2K")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and write nothing")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Plan a network for a chip, print the plan with its reasons, and write it as C99."""
    from scrimp.cli import output
    from scrimp.errors import ScrimpError, UsageError
    from scrimp.export.firmware import export_firmware, plan_firmware
    from scrimp.integer.lower import lower
    from scrimp.store.net import open_net

    if to != "firmware":
        raise UsageError(f"'{to}' is nothing to export to.", hint="--to firmware")
    if out is None and not dry_run:
        raise UsageError("There is no place to write to.", hint="-o OUT names the directory, --dry-run needs none")
    flash_bytes = None if flash is None else chip_bytes("flash", flash)
    ram_bytes = None if ram is None else chip_bytes("ram", ram)
    if not model.is_dir():
        raise ScrimpError(f"{model} {'is no directory' if model.exists() else 'does not exist'}.",
                          hint="name what `scrimp train` wrote")  # fmt: skip
    if out is not None and out.absolute().parent.resolve().is_relative_to(model.resolve()):
        raise UsageError(f"{out} lies in {model}, which holds nothing but a network.", hint="name another place")
    program = lower(*open_net(model))
    if dry_run or out is None:
        report = plan_firmware(program, target=target, flash=flash_bytes, ram=ram_bytes)
    else:
        report = export_firmware(
            program, out, target=target, flash=flash_bytes, ram=ram_bytes, planned=None if json else _print_plan
        )
    if json:
        output.print_json(report.to_json())
    elif dry_run:
        _print_plan(report)
    else:
        print(f"\nwritten to {out}: make -C {out} run")


def chip_bytes(name: str, text: str) -> int:
    """Sizes as data sheets of chips have them.

    >>> chip_bytes("flash", "16K"), chip_bytes("ram", "20480")
    (16384, 20480)
    """
    from scrimp.errors import UsageError

    match = re.fullmatch(r"\s*(\d{1,9})\s*([kKmM]?)[iI]?[bB]?\s*", text)
    size = int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()] if match else 0
    if not 0 < size < 1 << 31:
        raise UsageError(f"'{text}' is no size of --{name}.", hint="write it like 16K, which is 16,384 bytes")
    return size


def _print_plan(report: FirmwareReport) -> None:
    from scrimp.cli import output

    rows = [
        (
            layer.name,
            layer.packing,
            f"{layer.weights:,}" if layer.weights else "",
            f"{layer.weight_bytes:,}",
            f"{layer.instructions:,}",
            layer.reason,
        )
        for layer in report.layers
    ]
    output.print_table(("operation", "packing", "weights", "bytes", "instructions", "why"), rows, title=report.target)
    print(
        f"\nflash {report.flash_bytes:,} bytes{_of(report.flash_limit)}: weights {report.weight_bytes:,}, multipliers, "
        f"offsets and structures {report.parameter_bytes:,}, code about {report.code_bytes:,}"
    )
    print(
        f"RAM {report.ram_bytes:,} bytes{_of(report.ram_limit)}: activations and scratch {report.arena_bytes:,}, "
        f"stack {report.stack_bytes:,}"
    )
    vectors = f"{report.vectors} test vector{'' if report.vectors == 1 else 's'}"
    print(f"about {report.instructions:,} instructions per picture; {vectors if report.vectors else 'no test vectors'}")
    if not report.vectors:
        print("no test vector fits into the flash that is left: make run only runs it, make stream compares logits")
    if report.channel_by_channel:
        print("some operations run a channel at a time, which takes less RAM and more instructions")


def _of(limit: int | None) -> str:
    return "" if limit is None else f" of {limit:,}"
