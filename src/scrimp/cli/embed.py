"""``scrimp embed``: texts as vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrimp.cli.run import ModelName, Threads

Texts = Annotated[list[str] | None, typer.Argument(help="a vector is made of each", metavar="[TEXT]…")]


def embed(
    model: ModelName,
    texts: Texts = None,
    file: Annotated[Path | None, typer.Option(help="a file with a text on every line, instead of TEXT")] = None,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """Unit vectors of texts, one a line: the product of two of them says how near their meanings are."""
    from scrimp.cli import output
    from scrimp.errors import UsageError
    from scrimp.measure.windows import read_text
    from scrimp.model import open_model
    from scrimp.text.embed import cut_texts

    if (file is None) == (not texts):
        raise UsageError("Texts come from the command line or from a file, one of them.", hint="--file FILE, or TEXT…")
    lines = list(texts or ()) if file is None else read_text(file).splitlines()
    with open_model(model, threads=threads) as opened:
        output.notes(opened.notes)
        vectors = opened.embed(lines)
        cut = cut_texts(opened, lines)
    if json:
        output.print_json(
            {"model": model, "texts": len(lines), "cut": cut, "dimensions": vectors.shape[1],
             "vectors": [[float(value) for value in vector] for vector in vectors]}
        )  # fmt: skip
        return
    for vector in vectors:
        print(" ".join(f"{value:.7f}" for value in vector))
    if cut:
        output.note(f"{cut:,} of {len(lines):,} texts are longer than the model reads: their ends are left out")
