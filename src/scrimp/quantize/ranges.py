"""Fixed scales of activations as a part of compressing: which text, which rule, what ``config.json`` says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.calibrate import ranges
from scrimp.calibrate import windows as calibration_windows
from scrimp.calibrate.split import split
from scrimp.errors import Refused
from scrimp.progress import SILENT, Progress
from scrimp.quantize.plan import Plan
from scrimp.quantize.wish import Wish
from scrimp.sources.source import Source
from scrimp.store import activations, documents
from scrimp.tensors import QTensor

#: Windows of a text that show a range, unless more are asked for: 16,384 tokens where they are of 512.
WINDOWS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """The rule of :data:`scrimp.calibrate.ranges.RULES`, and the token ids ``(W, T)`` that the network reads for it."""

    rule: str
    windows: NDArray[np.int32]
    notes: tuple[str, ...]


def ranges_wanted(source: Source, wish: Wish) -> Ranges | None:
    """Refused when there is no text that this network could read."""
    if wish.range_rule is None:
        return None
    if source.tokenizer.kind == "none":
        raise Refused("Static activations read a text through the network, and this model has no tokenizer.",
                      hint="--tokenizer names one for llama2.c files; --activations dynamic needs none")  # fmt: skip
    from scrimp.text.tokenizer import load

    parsed, _ = models.build(source.config)
    tokenizer = load(source.tokenizer, rows=source.config["vocab_size"])
    read = calibration_windows.read(
        tokenizer, parsed.context, wish.calibrate, windows=wish.calibrate_windows or WINDOWS
    )
    return Ranges(wish.range_rule, read.windows, (f"activations: one fixed scale for each input ({wish.range_rule})",
                                                  *(f"activations: {note}" for note in read.notes)))  # fmt: skip


def measure_ranges(
    wanted: Ranges,
    source: Source,
    stored: Callable[[str], QTensor],
    *,
    directory: Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Run the text through the network as it will be stored, and return what ``config.json`` has to say."""
    _, program = models.build(source.config)
    vectors = {name: np.asarray(source.read(name), np.float32) for name in program.vectors}
    progress.start("activation ranges", len(split(program)))
    seen = ranges.measure(
        program, stored, vectors, wanted.windows, directory=directory, tick=lambda name: progress.advance(1, name)
    )
    progress.finish()
    return activations.document(wanted.rule, ranges.scales_of(seen, wanted.rule))


def ranges_bytes(source: Source, plan: Plan, wanted: Ranges) -> int:
    """What the scales add to ``config.json``, or a few bytes less."""
    _, program = models.build(source.config)
    names = {name for op in program.ops if op.kind == "linear" for name in op.weights}
    said = activations.document(wanted.rule, dict.fromkeys(names, 0.012345678))
    return len(documents.config_json(source, plan, said)) - len(documents.config_json(source, plan))
