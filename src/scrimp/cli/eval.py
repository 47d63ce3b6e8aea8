"""``scrimp eval``: perplexity, divergence from the original, tasks; of networks of pictures their accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrimp.cli.run import Kv
from scrimp.errors import UsageError

if TYPE_CHECKING:
    from scrimp.measure.evaluate import Evaluation


def eval_(
    model: Annotated[str, typer.Argument(help="a path, a catalogue name or a hub id", metavar="MODEL")],
    text: Annotated[Path | None, typer.Option(help="UTF-8 text; without it, the one that ships with scrimp")] = None,
    context: Annotated[int, typer.Option(help="tokens in a window")] = 512,
    max_tokens: Annotated[int | None, typer.Option(help="tokens in all windows together, at most")] = None,
    reference: Annotated[str | None, typer.Option(help="the MODEL it was made from; run in float32")] = None,
    task: Annotated[
        list[Path] | None, typer.Option(help="a file of tasks (HellaSwag lines, or JSON lines); repeatable")
    ] = None,
    task_limit: Annotated[int | None, typer.Option(min=1, help="the first so many items of each task file")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="one per core unless given")] = None,
    kv: Kv = "f16",
    pictures: Annotated[
        str | None, typer.Option(help="labelled pictures, for a network that sees: mnist:test, mnist:test@16x16, …")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="where their files lie, unless SCRIMP_DATA says it")] = None,
    json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> int:
    """How well a model predicts a text; with --reference, how far it moved away from the original; with --pictures, how
    many it names rightly."""
    from scrimp.cli import bar, output
    from scrimp.engine.cache import check_kv
    from scrimp.measure.evaluate import evaluate

    if pictures is not None:
        given = {"--text": text, "--reference": reference, "--task": task, "--max-tokens": max_tokens}
        return _eval_pictures(model, pictures, data, threads, [flag for flag, value in given.items() if value], json)
    if data is not None:
        raise UsageError("--data says where pictures lie.", hint="name them with --pictures")
    result = evaluate(
        model,
        text,
        reference=reference,
        context=context,
        max_tokens=max_tokens,
        tasks=task or (),
        task_limit=task_limit,
        threads=threads,
        kv=check_kv(kv),
        progress=bar.progress(),
    )
    if json:
        output.print_json(result.to_json())
    else:
        output.print_table(("measured", "value", "± error"), lines(result), title=result.model)
        output.notes(result.notes)
        output.note(
            f"protocol: {result.protocol}; {result.arithmetic} arithmetic, {result.kv} cache, {result.isa}. "
            "Errors are standard errors, from window means."
        )
    return output.verdict([result.model] if result.perplexity.broken else [])


def _eval_pictures(
    model: str, spec: str, data: Path | None, threads: int | None, of_text: list[str], json: bool
) -> int:
    from scrimp.cli import bar, output
    from scrimp.measure.pictures import evaluate_pictures
    from scrimp.sources.locate import locate

    if of_text:
        raise UsageError(f"{of_text[0]} is about text, --pictures about pictures.", hint="leave one of them out")
    result = evaluate_pictures(locate(model), spec, data=data, threads=threads, progress=bar.progress())
    if json:
        output.print_json(result.to_json())
        return 0
    rows = [
        ("accuracy", f"{100 * result.accuracy:.2f} %", _error(100 * result.accuracy_se)),
        ("pictures", f"{result.n:,}", ""),
        ("pictures per second", f"{result.pictures_per_s:,.0f}", ""),
        *((f"{pair.label} taken for {pair.taken_for}", f"{pair.n:,}", "") for pair in result.confused),
    ]
    output.print_table(("measured", "value", "± error"), rows, title=f"{result.model} on {spec}")
    output.note(f"integers only ({result.isa}, {result.threads} threads): the logits are those of an exported chip.")
    return 0


def lines(result: Evaluation) -> list[tuple[str, str, str]]:
    """The evaluation as rows: what, value, error."""
    found, apart = result.perplexity, result.divergence
    rows = [
        ("perplexity", "BROKEN" if found.broken else f"{found.ppl:.3f}", "" if found.broken else _error(found.ppl_se)),
        ("nll (nats per token)", f"{found.nll:.4f}", _error(found.nll_se)),
        ("nll of word counts alone", f"{found.unigram_nll:.4f}", ""),
        ("tokens scored", f"{found.tokens:,}", ""),
    ]
    if apart is not None:
        rows += [
            ("nll − nll of the reference", f"{apart.nll_change:+.4f}", _error(apart.nll_change_se)),
            ("KL from the reference, mean", f"{apart.kl_mean:.5f}", _error(apart.kl_se)),
            ("KL median", f"{apart.kl_median:.5f}", ""),
            ("KL 99 %", f"{apart.kl_p99:.5f}", ""),
            ("same top token", f"{100 * apart.same_top:.2f} %", _error(100 * apart.same_top_se)),
        ]
    for task in result.tasks:
        rows.append((f"{task.name} ({task.n:,})", f"{100 * task.accuracy:.1f} %", _error(100 * task.accuracy_se)))
        if task.accuracy_norm is not None and task.accuracy_norm_se is not None:
            norm = f"{100 * task.accuracy_norm:.1f} %"
            rows.append((f"{task.name}, by length", norm, _error(100 * task.accuracy_norm_se)))
    return rows


def _error(value: float) -> str:
    """Two digits of an error; nothing where it is unknown (NaN: a single window)."""
    return f"{value:#.2g}" if value == value else "one only"
