"""All cells of a sweep, those that are known already from the journal, the others one by one or on a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from scrimp.errors import Refused
from scrimp.measure.windows import cut, default_text
from scrimp.progress import SILENT, Progress
from scrimp.quantize.plan import Plan
from scrimp.sources import open_source
from scrimp.sources.locate import locate
from scrimp.store.documents import fingerprint
from scrimp.sweep.cell import Cell, Result, Setting, key_of, work
from scrimp.sweep.file import Sweep
from scrimp.sweep.journal import Journal


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say when a cell is finished."""

    result: Result
    done: int
    cells: int
    seconds_left: float  #: as the cells of the same method took so far; they run one after the other


def run(
    sweep: Sweep,
    journal: Journal,
    *,
    scratch: Path | None = None,
    workers: str | None = None,
    threads: int | None = None,
    progress: Progress = SILENT,
    tell: Callable[[Told], None] = lambda told: None,
) -> list[Result]:
    """Results in the order of the cells. ``workers``: how many processes of a local Ray cluster, or the address of one.

    ``tell`` hears of every cell as it is finished. What the journal knows is not done again.
    """
    sweep = sweep if sweep.setting.identity else checked(sweep)
    setting = sweep.setting
    keys = {key_of(cell, setting): cell for cell in sweep.cells}
    waiting = {key: cell for key, cell in keys.items() if key not in journal.found}
    for key, result in _results(waiting, setting, scratch, workers, threads, progress):
        journal.add(key, result)
        del waiting[key]
        left = seconds_left(list(waiting.values()), list(journal.found.values()))
        tell(Told(result, len(keys) - len(waiting), len(keys), left))
    return [replace(journal.found[key], name=cell.name) for key, cell in keys.items()]


def checked(sweep: Sweep) -> Sweep:
    """The sweep with the identity of its files, after all was looked at that can be wrong before the first cell:
    model and reference are opened, and the text is cut."""
    _check_text(sweep.setting)
    return replace(sweep, setting=replace(sweep.setting, identity=_identity(sweep.setting)))


def seconds_left(waiting: Sequence[Cell], found: Sequence[Result]) -> float:
    """What the waiting cells will take: each the mean of those of its method that were made, or of all."""
    made = [result for result in found if not result.error]
    if not made:
        return float("nan")
    everything = mean(result.seconds for result in made)
    total = 0.0
    for cell in waiting:
        same = [result.seconds for result in made if result.method == cell.wish.method]
        total += mean(same) if same else everything
    return total


def _results(
    waiting: dict[str, Cell],
    setting: Setting,
    scratch: Path | None,
    workers: str | None,
    threads: int | None,
    progress: Progress,
) -> Iterator[tuple[str, Result]]:
    if workers is not None:
        from scrimp.sweep.cluster import results

        yield from results(dict(waiting), setting, workers, threads)
        return
    with _statistics(scratch) as shared:
        for key, cell in list(waiting.items()):
            place = None if scratch is None else scratch / key[:16]
            yield key, work(cell, setting, place, statistics=shared, progress=_Titled(progress, cell.name))


@contextmanager
def _statistics(scratch: Path | None) -> Iterator[Path]:
    """A directory for what cells can share. It goes with the sweep; in ``scratch`` it waits where that is cut off."""
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="scrimp-sweep-") as folder:
            yield Path(folder)
        return
    yield scratch / "statistics"
    shutil.rmtree(scratch / "statistics", ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Titled:
    """Progress whose stages begin with the name of a cell."""

    progress: Progress
    title: str

    def start(self, what: str, total: float) -> None:
        self.progress.start(f"{self.title}: {what}", total)

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.progress.advance(amount, note)

    def finish(self) -> None:
        self.progress.finish()


def _identity(setting: Setting) -> str:
    """Of the files of model and reference; both are opened, so that a wrong name is known now."""
    prints = []
    for name in dict.fromkeys((setting.model, setting.reference)):
        with open_source(locate(name)) as source:
            prints.append(fingerprint(source, Plan({name: info.shape for name, info in source.tensors.items()}, {})))
    return " ".join(prints)


def _check_text(setting: Setting) -> None:
    """Refused now, and not after the first cell, where the model has no words or the text too few."""
    from scrimp.text.tokenizer import load

    with open_source(locate(setting.model)) as source:
        if source.tokenizer.kind == "none":
            raise Refused(f"{setting.model} has no tokenizer, so no loss can be measured.",
                          hint="sweep a model that brings one")  # fmt: skip
        tokenizer = load(source.tokenizer, rows=source.config["vocab_size"])
    words = default_text() if setting.text is None else setting.text
    bos = tokenizer.bos_id if tokenizer.add_bos else None
    cut(tokenizer.encode(words, add_bos=False), setting.context, bos=bos, max_tokens=setting.max_tokens)
