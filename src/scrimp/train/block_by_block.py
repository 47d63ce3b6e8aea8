"""Block by block: each block's output on the inputs of the recovered prefix is brought to the original's output.

Source: Nagel et al. 2020 (AdaRound), arXiv:2004.10568, section 3.3, for layers; Chen et al. 2024 (EfficientQAT),
arXiv:2407.11062, section 3.2, for blocks of a transformer with all its parameters.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrimp import models
from scrimp.calibrate.split import Block, split
from scrimp.calibrate.walk import Walk
from scrimp.engine.float_path import as_run
from scrimp.errors import Refused
from scrimp.progress import SILENT, Progress
from scrimp.sources.source import Source
from scrimp.tensors import F32, QTensor
from scrimp.train.adam import Adam
from scrimp.train.executor import Network, run
from scrimp.train.lessons import Lessons
from scrimp.train.settings import Settings, share_of_rate
from scrimp.train.student import Student

#: Windows whose hidden states go from block to block.
WINDOWS = 64


def learn_blocks(
    student: Student,
    original: Source,
    lessons: Lessons,
    settings: Settings,
    *,
    directory: Path | None = None,
    progress: Progress = SILENT,
) -> None:
    """``settings.block_steps`` steps of Adam for every block but the last, whose output only the loss of all can judge.

    Refused where the store's Program falls into other blocks than the original's.
    """
    ours, theirs = split(student.network.program), split(models.build(original.config)[1])
    if [(b.is_last, _width(b)) for b in ours] != [(b.is_last, _width(b)) for b in theirs]:
        raise Refused("The store's network falls into other blocks than its original.", hint="leave out --block-steps")
    chosen = lessons.learned[np.arange(n := min(WINDOWS, len(lessons.learned))) * len(lessons.learned) // n]
    windows = lessons.windows[chosen]
    walk, states = Walk(windows, directory=directory), None
    progress.start("block by block", len(ours) - 1)
    for mine, its in zip(ours[:-1], theirs[:-1], strict=True):
        _move(walk, its, original)
        assert walk.states is not None
        _learn(student, mine, windows, states, walk.states, settings)
        states = _outputs(student, mine, windows, states)
        progress.advance()
    progress.finish()


def _width(block: Block) -> int:
    return 0 if block.is_last else block.program.widths[block.output]


def _move(walk: Walk, block: Block, original: Source) -> None:
    """The original's hidden states one block on, by the engine."""
    matrices: dict[str, QTensor] = {}
    vectors: dict[str, F32] = {}
    for name in (*block.runs, *block.program.vectors):
        found = original.read(name)
        if isinstance(found, QTensor):
            matrices[name] = as_run(found)
        else:
            vectors[name] = found
    walk.run(block, matrices, vectors, collect=False, move=True)


def _learn(
    student: Student, block: Block, windows: NDArray[np.int32], states: F32 | None, targets: F32, settings: Settings
) -> None:
    """Adam on each token's squared error over the square of its target: some first tokens are a thousand times larger
    than all others, and would otherwise be all that counts."""
    names = {*block.matrices, *block.program.vectors}
    found = {kind: {n: p for n, p in named.items() if n in names} for kind, named in student.parameters().items()}
    optimizer = Adam({kind: named for kind, named in found.items() if named})
    for step in range(settings.block_steps if optimizer.memory else 0):  # an embedding that stays learns nothing
        optimizer.forget_gradients()
        at = int(np.random.default_rng((settings.seed, step)).integers(len(windows)))
        target = torch.from_numpy(np.array(targets[at]))
        apart = (_forward(student, block, windows, states, at) - target).square().sum(dim=-1)
        loss = (apart / target.square().sum(dim=-1)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        if not np.isfinite(float(loss.detach())):
            return
        share = share_of_rate(step / settings.block_steps)
        optimizer.step(step + 1, {kind: rate * share for kind, rate in settings.rates.items()})
        student.settle(block.matrices)
    optimizer.forget_gradients()


def _outputs(student: Student, block: Block, windows: NDArray[np.int32], states: F32 | None) -> F32:
    with torch.no_grad():
        found = [_forward(student, block, windows, states, at).numpy() for at in range(len(windows))]
    return np.stack(found)


def _forward(student: Student, block: Block, windows: NDArray[np.int32], states: F32 | None, at: int) -> Tensor:
    """The block's output ``(T, width)`` for one window."""
    network = Network(block.program, student.matrices, student.vectors)
    tokens = torch.from_numpy(windows[at : at + 1].astype(np.int64))
    inputs = {} if states is None else {0: torch.from_numpy(states[at : at + 1])}
    return run(network, tokens, (block.output,), first=block.first, inputs=inputs)[0][0]
