"""Rewrites in the walk: which Groups of a network a plan rewrites, and a block's matrices after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scrimp.calibrate.split import Block
from scrimp.calibrate.statistics import Statistics
from scrimp.errors import Refused
from scrimp.program import Program
from scrimp.quantize.around import unfolded
from scrimp.quantize.decoded import decode
from scrimp.quantize.fold import Group, apply_fold, fold_groups, fold_weight, shared
from scrimp.quantize.methods import Rewrite, method
from scrimp.quantize.plan import KEEP, Plan
from scrimp.tensors import F32, QTensor


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """A block's folds, and what they make of its vectors and of the Statistics of its matrices."""

    folds: tuple[tuple[Group, F32], ...]
    vectors: dict[str, F32]  #: of the Groups, changed or not
    statistics: dict[str, Statistics]
    notes: dict[str, tuple[str, ...]]  #: by the matrix they are told with

    def weight(self, name: str, weight: F32) -> F32:
        """The matrix ``(N, K)`` that is rounded."""
        for group, s in self.folds:
            weight = fold_weight(group, s, name, weight)
        return weight


def planned(
    plan: Plan, program: Program, blocks: Sequence[Block], due: Sequence[Sequence[str]]
) -> tuple[list[list[Group]], list[str]]:
    """The Groups that are rewritten at each block, where ``due`` is what is quantized; and why others are not.

    All readers of a Group must want the same rewrite, and all its tensors belong to one block.
    """
    groups, refused = fold_groups(program)
    found: list[list[Group]] = [[] for _ in blocks]
    left: dict[str, list[str]] = {}
    for names, why in refused.items():
        if any(_rewrite(plan, name) for name in names):
            left.setdefault(why, []).extend(names)
    for group in groups:
        wanted = {_rewrite(plan, name) for name in group.readers}
        if wanted == {None}:
            continue
        matrices = {*group.readers, *((group.rows,) if group.rows else ())}
        places = [
            at
            for at, block in enumerate(blocks)
            if matrices <= set(due[at]) and set(group.vectors) <= set(block.program.vectors)
        ]
        if len(wanted) > 1:
            why = "others that read the same inputs have other methods"
        elif group.rows and plan.choices[group.rows].method == KEEP:
            why = "what makes their inputs is kept as the source stores it"
        elif not places:
            why = "what makes their inputs belongs to another block"
        else:
            found[places[0]].append(group)
            continue
        left.setdefault(why, []).extend(group.readers)
    return found, [_told(why, names) for why, names in left.items()]


def rewrite(
    groups: Sequence[Group],
    plan: Plan,
    matrices: Mapping[str, QTensor],
    vectors: Mapping[str, F32],
    statistics: Mapping[str, Statistics],
) -> Rewritten:
    """Search the vector of every Group, each after the folds before it. Refused, with a name, for damaged weights."""
    held = {name: vectors[name] for group in groups for name in group.vectors}
    found = Rewritten((), held, dict(statistics), {})
    for group in groups:
        first = group.readers[0]
        search = _rewrite(plan, first)
        assert search is not None
        weights = {name: found.weight(name, decode(matrices[name])) for name in group.readers}
        formats = {name: plan.choices[name].format for name in group.readers}
        rounds = {name: method(unfolded(plan.choices[name].method)).run for name in group.readers}
        try:
            scaling = search(group, weights, found.statistics[first], formats, rounds)
        except Refused as error:
            raise Refused(f"{first}: {error.message}", hint=error.hint) from None
        notes = {**found.notes, first: scaling.notes}
        if scaling.s is None:
            found = Rewritten(found.folds, found.vectors, found.statistics, notes)
            continue
        s = shared(group, scaling.s)
        folded = apply_fold(group, s, {}, found.vectors, found.statistics)
        found = Rewritten((*found.folds, (group, s)), folded.vectors, folded.statistics, notes)
    return found


def _rewrite(plan: Plan, name: str) -> Rewrite | None:
    choice = plan.choices.get(name)
    return None if choice is None or choice.method == KEEP else method(choice.method).rewrite


def _told(why: str, names: Sequence[str]) -> str:
    which = names[0] if len(names) == 1 else f"{len(names)} matrices such as {names[0]}"
    return f"not rewritten: {which}; {why}"
