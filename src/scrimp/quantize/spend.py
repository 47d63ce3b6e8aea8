"""A goal → a Plan that spends every byte where it saves most: a Format for each matrix, from measured sensitivities.

The divergence of the network is taken to be the sum of what its matrices cause one by one, each proportional to its
squared relative error (second order, no cross terms). What it really is, is measured before anyone is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import GoalNotMet
from scrimp.formats import Format, parse
from scrimp.progress import SILENT, Progress
from scrimp.quantize.allocate import Allocation, Option, allocate, cheapest
from scrimp.quantize.apply import calibrates, one
from scrimp.quantize.plan import ENDS, KEEP, Choice, Plan, Rule
from scrimp.quantize.sensitivity import Probe, recall, remember, sample_error, sensitivities
from scrimp.quantize.survey import FORMAT as CODED_FORMAT
from scrimp.quantize.survey import Surveyed
from scrimp.sizes import format_bytes
from scrimp.sources.source import Source
from scrimp.tensors import QTensor, stored_bytes

#: What a matrix may be stored in. The kernels run all of these as they are.
MENU: tuple[Format, ...] = (
    *(parse(f"int{b}{kind}:g{group}") for b in (2, 3, 4, 5, 6) for kind in ("", "z") for group in (32, 64, 128)),
    parse("int8:g64"),
)
#: A plan of coded bytes aims this much below the goal: what a matrix takes is known when its codes are.
CODED_MARGIN = 0.002
#: A plan is corrected this often when the measured divergence misses the goal.
CORRECTIONS = 4


@dataclass(frozen=True, slots=True)
class Spent:
    """A plan and what is known of it; divergences in nats, on the probe's tokens, weights alone."""

    plan: Plan
    kl_estimated: float  #: the sum of its matrices' own
    kl_measured: float | None  #: with all matrices rounded together; None where only the walk can round them
    kl_bound: float  #: no plan of this menu and size has a smaller estimate
    file_bytes: int  #: of the whole directory

    @property
    def note(self) -> str:
        if self.kl_measured is None:
            return (
                f"planned by measured sensitivities and coded bytes: expected KL {self.kl_estimated:.4f} on other text "
                f"(no plan of this size below {self.kl_bound:.4f})"
            )
        return (
            f"planned by measured sensitivities: KL {self.kl_measured:.4f} on other text with the weights alone "
            f"(sum of single matrices {self.kl_estimated:.4f}, no plan of this size below {self.kl_bound:.4f})"
        )


class Spender:
    """Sensitivities and errors of a network, measured once; then any number of goals."""

    def __init__(
        self,
        source: Source,
        windows: NDArray[np.int32],
        file_bytes: Callable[[Plan], int],
        *,
        method_name: str = "rtn",
        embedding: Format | None = None,
        rules: Iterable[Rule] = (),
        remembered: Path | None = None,
        surveyed: Mapping[str, Surveyed] | None = None,
        progress: Progress = SILENT,
    ) -> None:
        """With a survey the store is packed: the matrices take their coded bytes, and ``file_bytes`` is the rest."""
        self._source, self._file_bytes, self._surveyed = source, file_bytes, surveyed
        self._shapes = {name: info.shape for name, info in source.tensors.items()}
        self._probe = Probe(source, windows)
        measured = recall(remembered, self._probe)
        if measured is None:
            measured = sensitivities(self._probe, progress=progress)
            remember(remembered, measured)
        self._measured = measured
        matrices = [name for name, shape in self._shapes.items() if len(shape) == 2]
        rules = list(rules)
        self._menus: dict[str, list[tuple[Choice, Option]]] = {}
        progress.start("errors", len(matrices))
        for name in matrices:
            pinned = next((rule.choice for rule in reversed(rules) if rule.matches(name)), None)
            if pinned is None and embedding is not None and name in ENDS:
                pinned = Choice(embedding, method_name)
            self._menus[name] = self._menu(name, method_name, pinned)
            progress.advance(1, name)
        progress.finish()

    def within(self, limit_bytes: int) -> Spent:
        """The plan of least divergence whose files fit; GoalNotMet names the smallest size."""
        aim = limit_bytes if self._surveyed is None else int(limit_bytes * (1 - CODED_MARGIN))
        smallest = self._smallest()
        room = aim - (self._bytes(smallest) - self._matrix_bytes(smallest))
        while (found := allocate(self._options(), room)) is not None:
            excess = self._bytes(found.chosen) - aim
            if excess <= 0:
                return self._told(found)
            room -= excess
        least = self._bytes(smallest) + limit_bytes - aim
        raise GoalNotMet(
            f"No plan fits {format_bytes(limit_bytes)} ({limit_bytes:,} bytes); the smallest takes {least:,} bytes.",
            hint=f"ask for {format_bytes(least + 10**5)}, or choose formats with --format and --rule",
        )

    def losing(self, limit_kl: float) -> Spent:
        """The smallest plan whose measured divergence is at most ``limit_kl``; GoalNotMet where none reaches it."""
        aim, best = limit_kl, None
        for _ in range(CORRECTIONS):
            found = cheapest(self._options(), aim)
            if found is None:
                break
            told = self._told(found)
            kl = told.kl_estimated if told.kl_measured is None else told.kl_measured
            if kl <= limit_kl:
                best = told if best is None or told.file_bytes < best.file_bytes else best
                if kl > 0.9 * limit_kl or told.kl_measured is None:
                    break
            if kl > limit_kl:  # below this plan's own estimate, else the next one could be the same
                aim = min(aim, told.kl_estimated) * limit_kl / kl
            else:
                aim *= limit_kl / max(kl, 1e-9) if kl > 0 else 2.0
        if best is None:
            raise GoalNotMet(
                f"No plan was found that loses at most {limit_kl:g} nats.",
                hint="allow more, or choose formats with --format and --rule",
            )
        return best

    def _menu(self, name: str, method_name: str, pinned: Choice | None) -> list[tuple[Choice, Option]]:
        stored, shape = self._source.read(name), self._shapes[name]
        assert isinstance(stored, QTensor)
        sides = shape[0], shape[1]
        kl_per_error = self._measured.get(name, 0.0)  # 0: no operation reads it, so that it costs nothing but bytes
        if pinned is not None:
            choices = [pinned]
        elif self._surveyed is not None:
            return _coded_menu(self._surveyed[name], kl_per_error, stored.format, shared=name in ENDS)
        else:
            choices = [Choice(format, method_name) for format in MENU] + [Choice(stored.format, KEEP)]
        rounded = {c.format.name: c.format for c in choices if c.method != KEEP}
        errors = sample_error(stored, rounded, _uncalibrated(choices[0]).method) if rounded else {}
        return [
            (
                choice,
                Option(
                    stored_bytes(choice.format, sides),
                    0.0 if choice.method == KEEP else kl_per_error * errors[choice.format.name],
                ),
            )
            for choice in choices
        ]

    def _options(self) -> list[list[Option]]:
        return [[option for _, option in menu] for menu in self._menus.values()]

    def _plan(self, chosen: Sequence[int]) -> Plan:
        return Plan(
            self._shapes, {name: menu[at][0] for (name, menu), at in zip(self._menus.items(), chosen, strict=True)}
        )

    def _smallest(self) -> list[int]:
        return [min(range(len(menu)), key=lambda at: menu[at][1].nbytes) for menu in self._menus.values()]

    def _matrix_bytes(self, chosen: Sequence[int]) -> int:
        return sum(menu[at][1].nbytes for menu, at in zip(self._menus.values(), chosen, strict=True))

    def _bytes(self, chosen: Sequence[int]) -> int:
        rest = self._file_bytes(self._plan(chosen))
        return rest if self._surveyed is None else rest + self._matrix_bytes(chosen)

    def _told(self, found: Allocation) -> Spent:
        plan = self._plan(found.chosen)
        measured = None if self._surveyed is not None else self._probe.divergence(self._rounded(plan.choices))
        return Spent(plan, found.cost, measured, found.bound, self._bytes(found.chosen))

    def _rounded(self, choices: Mapping[str, Choice]) -> dict[str, QTensor]:
        rounded = {}
        for name, stored in self._probe.matrices.items():
            if choices[name].method != KEEP:
                tensor = one(name, stored, _uncalibrated(choices[name])).tensor
                assert isinstance(tensor, QTensor)
                rounded[name] = tensor
        return rounded


def _uncalibrated(choice: Choice) -> Choice:
    """The choice, or plain rounding where its method wants Statistics: what it will save is not known beforehand."""
    return Choice(choice.format, "rtn") if calibrates(choice) else choice


def _coded_menu(found: Surveyed, kl_per_error: float, kept: Format, *, shared: bool) -> list[tuple[Choice, Option]]:
    """All rates, and as the source stores it. What embeds as well is read in two places: nothing is folded into it."""
    probe_kl = kl_per_error * found.probe_error
    before = "" if shared else "waterfill+"
    offers = [
        (Choice(CODED_FORMAT, f"{before}ecsq:{offer.bits:g}"), Option(offer.nbytes, probe_kl * offer.error))
        for offer in found.offers
    ]
    return [*offers, (Choice(kept, KEEP), Option(found.kept_bytes, 0.0))]
