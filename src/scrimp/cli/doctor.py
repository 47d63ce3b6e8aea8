"""``scrimp doctor``: the machine, what was chosen for it, and known problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.measure.machine import Machine


def doctor(json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False) -> None:
    """Processor, instruction sets found and chosen, threads, memory, versions, known problems."""
    from scrimp.cli import output
    from scrimp.measure.machine import examine

    machine = examine()
    if json:
        output.print_json(machine.to_json())
        return
    width = max(len(name) for name, _ in lines(machine))
    for name, value in lines(machine):
        print(f"{name:<{width}}  {value}")
    print()
    for problem in machine.problems:
        print(f"problem: {problem.problem}\nhint:    {problem.hint}")
    if not machine.problems:
        print("no known problems")


def lines(machine: Machine) -> list[tuple[str, str]]:
    """What was found, by name."""
    from scrimp.sizes import format_bytes

    def size(value: int | None) -> str:
        return "unknown" if value is None else format_bytes(value)

    quota = "" if machine.cpu_quota is None else f", {machine.cpu_quota:g} allowed by the container"
    speed = machine.memory_read_gb_per_s
    return [
        ("processor", machine.processor),
        ("features", " ".join(machine.features) or "none known"),
        ("instruction sets", f"{', '.join(machine.isas) or 'none'}; chosen: {machine.isa or 'none'}"),
        ("cores", f"{machine.physical_cores or 'unknown'} physical, {machine.logical_cores} logical{quota}"),
        ("threads", f"{machine.threads or 'unknown'} unless --threads or SCRIMP_THREADS say otherwise"),
        ("memory", f"{size(machine.memory_bytes)}, {size(machine.memory_available_bytes)} free"),
        ("memory reading", "unknown" if speed is None else f"{speed:.1f} GB/s"),
        ("huge pages", machine.huge_pages or "unknown"),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
    ]
