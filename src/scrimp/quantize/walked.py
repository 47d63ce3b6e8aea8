"""The loop with calibration: a Plan applied to a source block by block, each method told what its matrix multiplies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scrimp import models
from scrimp.calibrate import joint
from scrimp.calibrate.kept import Kept
from scrimp.calibrate.original import Original
from scrimp.calibrate.split import STAND_IN, Block, split
from scrimp.calibrate.walk import Walk
from scrimp.calibrate.windows import Calibration, Prefix
from scrimp.models.attach import attach
from scrimp.progress import SILENT, Progress
from scrimp.quantize.apply import Applied, calibrates, one, wants_gradients
from scrimp.quantize.around import fitted
from scrimp.quantize.fold import Group
from scrimp.quantize.methods import method
from scrimp.quantize.plan import KEEP, Plan
from scrimp.quantize.rewriting import planned, rewrite
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor


def apply_walked(
    plan: Plan,
    source: Source,
    calibration: Calibration,
    *,
    done: Collection[str] = (),
    stored: Callable[[str], QTensor | F32],
    directory: Path | None = None,
    kept: Kept | None = None,
    progress: Progress = SILENT,
) -> Iterator[Applied]:
    """Every tensor of the plan but those ``done``, in the order of the network.

    A block runs once with the weights of the source to be measured; its matrices, and the vectors before them, are
    rewritten where a method does that; they are quantized, and the block runs again as it will be stored, which makes
    the inputs of the next one. With ``prefix="joint"`` a second set of states runs through the source's blocks, and
    weights are corrected for how far the first has come from it. With ``prefix="original"`` a block runs once, or not
    at all where its Statistics are ``kept`` or nobody wants them. ``stored`` returns a tensor that is done or was
    yielded: the caller keeps each before it asks for the next. ``progress`` counts weights, once for every time they
    are used.
    """
    blocks, due, groups, _ = route(plan, source)
    rewritable = {name for block_groups in groups for group in block_groups for name in group.vectors}
    prefix, quantized = calibration.prefix, calibration.prefix != "original"
    vectors: dict[str, F32] = {}
    for name in plan.shapes:
        if name not in plan.choices:
            vectors[name] = np.asarray(source.read(name), np.float32)
            if name not in done and name not in rewritable:
                yield one(name, vectors[name], None)
    progress.start("compress", sum(_cost(plan, block, names, prefix) for block, names in zip(blocks, due, strict=True)))
    walk, beside = (Walk(calibration.windows, directory=directory, arithmetic="int8") for _ in range(2))
    original = Original(walk, blocks, lambda name: _matrix(source.read, name), vectors, kept)
    fisher = _fisher(plan, source, calibration, done, directory, progress)
    replaced: set[str] = set()
    for at, (block, names, block_groups) in enumerate(zip(blocks, due, groups, strict=True)):
        measured = any(name not in done and name in block.reads for name in names)
        note = names[0] if names else ""
        weights = {name: _matrix(source.read, name) for name in _needed(block, names, done, prefix)}

        def tick(share: float = _weights(plan, block.runs) / len(calibration.windows), note: str = note) -> None:
            progress.advance(share, note)

        statistics = {}
        if not measured:
            progress.advance(_weights(plan, block.runs), note)
            if prefix == "joint" and not block.is_last:
                beside.run(block, weights, vectors, collect=False, move=True, tick=tick)
        elif prefix == "joint":
            statistics = joint.measure(beside, walk, block, weights, vectors, tick)
        elif quantized:
            statistics = walk.run(block, weights, vectors, collect=True, move=False, tick=tick)
        else:
            statistics = original.statistics(at, weights, tick)
        fresh = [group for group in block_groups if group.readers[0] not in done]
        rewritten = rewrite(fresh, plan, weights, vectors, statistics)
        statistics = rewritten.statistics
        for name in rewritten.vectors:
            yield one(name, rewritten.vectors[name], None)
        for name in names:
            if name not in done:
                known = statistics.pop(name, None)
                if known is not None and name in fisher:
                    known = replace(known, fisher=fisher[name])
                made = one(name, weights.pop(name), plan.choices[name], known, rewritten.weight)
                yield replace(made, notes=(*rewritten.notes.get(name, ()), *made.notes))
            progress.advance(_weights(plan, [name]), name)
        replaced.update(names)
        if quantized and not block.is_last:
            del statistics  # the moments are the largest thing here
            left = {name: weights[name] for name in block.runs if name not in replaced}
            running = _with_sidecars(block, plan, replaced, stored)
            weights = left | {name: _matrix(stored, name) for name in running.runs if name not in left}
            changed = {name: _vector(stored, name) for group in block_groups for name in group.vectors}
            walk.run(running, weights, vectors | changed, collect=False, move=True, tick=tick)
    progress.finish()


def _fisher(
    plan: Plan,
    source: Source,
    calibration: Calibration,
    done: Collection[str],
    directory: Path | None,
    progress: Progress,
) -> Mapping[str, F32]:
    """Gradients at the outputs of the matrices whose method wants them; measured anew where a compression goes on."""
    wanted = [name for name, choice in plan.choices.items() if name not in done and wants_gradients(choice)]
    if not wanted:
        return {}
    from scrimp.train import fisher

    return fisher.measure(source, wanted, calibration.windows, directory=directory, progress=progress)


def cut_off(plan: Plan, source: Source, done: Collection[str]) -> list[str]:
    """Finished tensors that must be made anew, since an interruption came amid the rewrite of their block.

    The parts of a rewrite only fit each other, and another machine need not find the same again to the last bit.
    """
    found: list[str] = []
    for groups in route(plan, source)[2]:
        tensors = {name for group in groups for name in group.tensors}
        if any(name not in done for name in tensors):
            found += [name for name in tensors if name in done]
    return found


def schedule(plan: Plan, blocks: Sequence[Block]) -> list[list[str]]:
    """The matrices that are quantized at each block.

    That is where they are used; of several places the last that multiplies with them when their method calibrates,
    since there the Statistics are, else the first. So a tied embedding is quantized with the head, and the walk begins
    with the original.
    """
    due: list[list[str]] = [[] for _ in blocks]
    for name in plan.choices:
        used = [at for at, block in enumerate(blocks) if name in block.matrices]
        read = [at for at, block in enumerate(blocks) if name in block.reads]
        due[read[-1] if read and calibrates(plan.choices[name]) else used[0]].append(name)
    return due


def applicable(plan: Plan, source: Source) -> Plan:
    """The plan with other methods where theirs cannot work, and with the side-cars of those that have them.

    A matrix that multiplies with nothing has no Statistics: ``hqq+refit`` becomes ``hqq``, and what calibrates from the
    start becomes ``rtn``. Formats that store values without a scale leave nothing to choose: always ``rtn``.
    """
    _, program = models.build(source.config)
    read = {name for op in program.ops if op.kind == "linear" for name in op.weights}
    choices = {
        name: replace(plan.choices[name], method=method)
        for name, method in fitted(program, {name: choice.method for name, choice in plan.choices.items()}).items()
    }
    for name, choice in list(choices.items()):
        if choice.method != KEEP and choice.format.scale is None:
            choices[name] = replace(choice, method="rtn")
        elif name not in read and calibrates(choice) and method(choice.method).coded_bits is not None:
            choices[name] = replace(choice, method=f"ecsq:{method(choice.method).coded_bits:g}")  # all errors alike
        elif name not in read and calibrates(choice):
            first = replace(choice, method=choice.method.partition("+")[0])
            choices[name] = replace(choice, method="rtn") if calibrates(first) else first
    beside = dict(plan.beside)
    for name, choice in choices.items():
        needs = None if choice.method == KEEP else method(choice.method).beside
        if needs is not None:
            beside[name] = needs((plan.shapes[name][0], plan.shapes[name][1]))
    return replace(plan, choices=choices, beside=beside)


def notes_of_walk(plan: Plan, source: Source, calibration: Calibration) -> list[str]:
    """Which text, and which matrices saw too little of it, or nothing."""
    _, program = models.build(source.config)
    blocks = split(program)
    read = {name for block in blocks for name in block.reads}
    starved = [name for name in plan.choices if name in read and plan.shapes[name][1] > calibration.tokens]
    found = [*calibration.notes, *route(plan, source)[3]]
    if starved:
        worst = max(starved, key=lambda name: plan.shapes[name][1])
        found.append(
            f"starved: {calibration.tokens:,} tokens are fewer than the inputs of {len(starved)} matrices such as "
            f"{worst} ({plan.shapes[worst][1]:,} inputs); more --calibrate-windows help"
        )
    for name, choice in plan.choices.items():
        if name not in read:
            found.append(f"{name} multiplies with nothing, so it has no statistics: quantized with {choice.method}")
    if calibration.prefix == "joint":
        found.append("weights make up for what is lost before them; their errors are told against what was rounded")
    embedded = {name for op in program.ops if op.kind == "embed" for name in op.weights}
    late = [name for name in plan.choices if name in read & embedded and calibrates(plan.choices[name])]
    if late and calibration.prefix != "original":
        found.append(f"{late[0]} is the head too and was quantized last: calibration embedded with the original")
    return found


def _needed(block: Block, names: Sequence[str], done: Collection[str], prefix: Prefix) -> list[str]:
    """The matrices of the source that a block wants: to measure, to quantize, or where nothing replaces them."""
    fresh = [name for name in names if name not in done]
    if prefix == "original":
        runs = block.runs if fresh else ()
    elif fresh or prefix == "joint":
        runs = block.runs
    else:
        runs = tuple(name for name in block.runs if name not in names)
    return list(dict.fromkeys((*runs, *fresh)))


def _with_sidecars(
    block: Block, plan: Plan, replaced: Collection[str], stored: Callable[[str], QTensor | F32]
) -> Block:
    """The block as it will be stored."""
    shapes = {
        f"{name}.{suffix}": car.shape
        for name in block.runs
        if name in replaced
        for suffix, car in plan.beside.get(name, {}).items()
    }
    program = attach(block.program, shapes, lambda name: _vector(stored, name))
    return replace(block, program=program, runs=tuple(name for name in program.matrices if name != STAND_IN))


def _cost(plan: Plan, block: Block, names: Sequence[str], prefix: Prefix) -> float:
    measured = 2 if prefix == "joint" else 1
    runs = measured + (prefix != "original" and not block.is_last)
    return runs * _weights(plan, block.runs) + _weights(plan, names)


def _weights(plan: Plan, names: Sequence[str]) -> float:
    return float(sum(np.prod(plan.shapes[name]) for name in names))


def route(plan: Plan, source: Source) -> tuple[tuple[Block, ...], list[list[str]], list[list[Group]], list[str]]:
    """The blocks, what is quantized and what is rewritten at each, and why other matrices are not rewritten."""
    _, program = models.build(source.config)
    blocks = split(program)
    due = schedule(plan, blocks)
    return blocks, due, *planned(plan, program, blocks, due)


def _matrix(read: Callable[[str], QTensor | F32], name: str) -> QTensor:
    found = read(name)
    assert isinstance(found, QTensor), name
    return found


def _vector(read: Callable[[str], QTensor | F32], name: str) -> F32:
    found = read(name)
    assert not isinstance(found, QTensor), name
    return found
