"""``scrimp inspect``: what is in a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrimp.measure.tensor_report import ModelReport, TensorReport
    from scrimp.sources import Source

_BARS = " ▁▂▃▄▅▆▇█"


def inspect(
    model: Annotated[str, typer.Argument(help="a path, a catalogue name or a hub id", metavar="MODEL")],
    tensor: Annotated[str | None, typer.Option(help="one tensor, with a histogram of its values")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="the tok*.bin of a llama2.c model")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Per tensor: shape, format, bytes, bits per weight, entropy of its codes, spread of its values; and the totals."""
    from scrimp.cli import bar, output
    from scrimp.measure.tensor_report import histogram, inspect_model, inspect_tensor
    from scrimp.sources import open_source
    from scrimp.sources.locate import locate

    with open_source(locate(model), tokenizer=tokenizer) as source:
        if tensor is None:
            report = inspect_model(source, progress=bar.progress())
            if json:
                output.print_json(report.to_json())
            else:
                _print_model(report)
            return
        one = inspect_tensor(source, tensor)
        counts = histogram(source.read(one.name), one.min, one.max)
        if json:
            output.print_json({**one.to_json(), "histogram": {"low": one.min, "high": one.max, "counts": counts}})
        else:
            _print_tensor(source, one, counts)


def _print_model(report: ModelReport) -> None:
    from scrimp.cli import output
    from scrimp.sizes import format_bytes

    columns = ("tensor", "shape", "format", "bytes", "bits/w", "entropy", "used", "min", "max", "mean", "std")
    ordered = sorted(report.tensors, key=lambda tensor: _natural(tensor.name))
    output.print_table(columns, [_row(tensor) for tensor in ordered], title=f"{report.model} ({report.kind})")
    print(
        f"\n{report.parameters:,} parameters in {format_bytes(report.file_bytes)} ({report.file_bytes:,} bytes): "
        f"{report.bits_per_weight:.3f} bits per weight, everything included"
    )
    if cache := ", ".join(f"{format_bytes(size)} as {kv}" for kv, size in report.kv_bytes_per_token.items()):
        print(f"a token of context takes {cache}")
    output.notes(report.notes)


def _natural(name: str) -> list[tuple[int, str]]:
    """Layer 9 before layer 10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in name.split(".")]


def _row(tensor: TensorReport) -> tuple[str, ...]:
    numbers = (tensor.min, tensor.max, tensor.mean, tensor.std)
    return (
        tensor.name,
        "×".join(map(str, tensor.shape)),
        tensor.format,
        f"{tensor.bytes:,}",
        f"{tensor.bits_per_weight:.3f}",
        "" if tensor.entropy_bits is None else f"{tensor.entropy_bits:.3f}",
        "" if tensor.capacity_used is None else f"{100 * tensor.capacity_used:.0f} %",
        *(f"{number:.3g}" for number in numbers),
    )


def _print_tensor(source: Source, tensor: TensorReport, counts: list[int]) -> None:
    from scrimp.cli import output

    entropy = "not counted" if tensor.entropy_bits is None else f"{tensor.entropy_bits:.4f} bits per code"
    used = "" if tensor.capacity_used is None else f" ({100 * tensor.capacity_used:.1f} % of what the codes can hold)"
    rows = [
        ("model", str(source.path)),
        ("shape", " × ".join(map(str, tensor.shape))),
        ("format", tensor.format),
        ("stored as", tensor.stored),
        ("bytes", f"{tensor.bytes:,}"),
        ("bits per weight", f"{tensor.bits_per_weight:.4f}"),
        ("entropy", entropy + used),
        ("min, max", f"{tensor.min:.6g}, {tensor.max:.6g}"),
        ("mean ± std", f"{tensor.mean:.6g} ± {tensor.std:.6g}"),
    ]
    output.print_table(("tensor", tensor.name), rows)
    print(f"\n{tensor.min:.3g} {bars(counts)} {tensor.max:.3g}")


def bars(counts: list[int]) -> str:
    """A histogram as one line; whatever is not empty shows.

    >>> bars([0, 1, 4, 8])
    ' ▁▄█'
    """
    most = max(counts) or 1
    return "".join(_BARS[-(-8 * count // most)] for count in counts)
