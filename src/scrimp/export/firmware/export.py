"""An IntegerProgram as a directory of C99 for one target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from scrimp.errors import Refused
from scrimp.export.firmware import c_source, project, vectors
from scrimp.export.firmware.narrow import upright
from scrimp.export.firmware.plan import STACK_BYTES, Plan, plan
from scrimp.export.firmware.readme import readme
from scrimp.export.firmware.report import FirmwareReport, report_of
from scrimp.export.firmware.targets import Target, target_named
from scrimp.integer.program import IntegerProgram, Product
from scrimp.integer.reference import U8

#: Test vectors, unless fewer fit.
VECTORS = 3
#: Bytes of noise that are made for them.
_NOISE = 1 << 20


def export_firmware(
    program: IntegerProgram,
    out: Path,
    *,
    target: str,
    flash: int | None = None,
    ram: int | None = None,
    packings: Mapping[str, str] | None = None,
    chains: bool | None = None,
    pictures: U8 | None = None,
    planned: Callable[[FirmwareReport], None] | None = None,
) -> FirmwareReport:
    """Write ``out``: sources, runtime, Makefile, test vectors; complete or not at all, the same bytes each time.

    ``flash`` and ``ram`` in bytes limit what is planned, ``packings`` (operation → name) and ``chains`` decide parts of
    it, ``pictures`` become the test vectors instead of noise, and ``planned`` sees the plan before anything is written.

    Errors: UsageError for an unknown target or packing, Refused where ``out`` exists, GoalNotMet where nothing fits.
    """
    project.check_place(out)
    program = _upright(program)
    chosen, made, count, report = _planned(program, target, flash, ram, packings, chains, pictures, out)
    if planned is not None:
        planned(report)
    limits = (flash or chosen.flash_most, ram or chosen.ram_most)
    texts = {
        "model.h": c_source.header(program, made.arena),
        "model.c": c_source.source(program, made.stages, made.packings, made.arena),
        "vectors.h": vectors.header(program, pictures, count),
        "Makefile": project.makefile(chosen, *limits, STACK_BYTES),
        "README.md": readme(program, report),
    }
    project.write(out, chosen, set(made.packings.values()), texts)
    return report


def plan_firmware(
    program: IntegerProgram, *, target: str, flash: int | None = None, ram: int | None = None
) -> FirmwareReport:
    """What :func:`export_firmware` would write, and nothing written."""
    return _planned(_upright(program), target, flash, ram, None, None, None, None)[3]


def _upright(program: IntegerProgram) -> IntegerProgram:
    return replace(program, ops=tuple(upright(op) if isinstance(op, Product) else op for op in program.ops))


def _planned(
    program: IntegerProgram,
    target: str,
    flash: int | None,
    ram: int | None,
    packings: Mapping[str, str] | None,
    chains: bool | None,
    pictures: U8 | None,
    out: Path | None,
) -> tuple[Target, Plan, int, FirmwareReport]:
    chosen = target_named(target)
    made = plan(program, chosen, flash, ram, packings, chains)
    count = _vectors(program, made, flash, pictures)
    return chosen, made, count, report_of(made, flash, ram, count, out)


def _vectors(program: IntegerProgram, made: Plan, flash: int | None, pictures: U8 | None) -> int:
    image = program.buffers[0]
    if pictures is not None and pictures.shape[1:] != (image.height, image.width, image.channels):
        raise Refused(
            f"Pictures of shape {pictures.shape[1:]} are no test vectors of a network that reads {image}.",
            hint="height, width and channels must be the same",
        )
    wanted = min(VECTORS, _NOISE // image.size if pictures is None else len(pictures))
    if flash is None:
        return wanted
    room = flash - made.flash - vectors.COMPARING
    return max(0, min(wanted, room // vectors.vector_bytes(program, pictures is not None)))
