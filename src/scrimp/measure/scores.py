"""Every scored token of a text: how likely a model, and a reference beside it, found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.measure.windows import Windows
from scrimp.progress import SILENT, Progress

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: Tokens whose logits exist at one time: 128 × V floats, 25 MB for a vocabulary of 49,152.
CHUNK = 128


class Network(Protocol):
    """What measuring needs of a model."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def isa(self) -> str: ...

    def logits(self, tokens: Sequence[int], start: int = 0) -> F32:
        """Logits ``(T, V)`` after each of ``tokens`` at positions ``start …``; earlier ones are remembered."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Per scored token, ``(windows, context - 1)`` float64 in nats. The last three need a reference.

    ``kl`` is KL(reference ‖ model) of the two next-token distributions; ``same_top`` whether both find the same token
    the likeliest.
    """

    nll: F64
    nll_reference: F64 | None = None
    kl: F64 | None = None
    same_top: NDArray[np.uint8] | None = None


def score(
    models: Sequence[Network], windows: Windows, *, reference: Network | None = None, progress: Progress = SILENT
) -> list[Scores]:
    """Run the windows through every model, and through the reference once, in lockstep.

    Only one chunk of logits of the reference and one of a model are ever held.
    """
    from scrimp import _core

    _check([*models, *([] if reference is None else [reference])], windows)
    length = windows.context - 1  # the last token of a window is scored, but nothing is predicted from it
    columns: list[dict[str, list[NDArray[np.generic]]]] = [{} for _ in models]
    progress.start("measuring", len(windows.tokens) * length)
    for window in windows.tokens:
        for start in range(0, length, CHUNK):
            end = min(start + CHUNK, length)
            tokens, targets = window[start:end].tolist(), np.ascontiguousarray(window[start + 1 : end + 1])
            expected = None if reference is None else reference.logits(tokens, start)
            for model, kept in zip(models, columns, strict=True):
                logits = model.logits(tokens, start)
                scored = _core.score(logits, targets, expected, threads=model.threads, isa=model.isa)
                for name, values in scored.items():
                    kept.setdefault(name, []).append(values)
            progress.advance(end - start)
    progress.finish()
    return [
        Scores(**{name: np.concatenate(parts).reshape(-1, length) for name, parts in kept.items()}) for kept in columns
    ]


def _check(networks: list[Network], windows: Windows) -> None:
    sizes = [network.vocab_size for network in networks]
    if len(set(sizes)) > 1:
        raise Refused(
            f"The models have vocabularies of {', '.join(f'{size:,}' for size in sizes)}: they cannot be compared.",
            hint="compare a model with what was made from it",
        )
    shortest = min(network.context for network in networks)
    if windows.context > shortest:
        raise Refused(
            f"A window of {windows.context} tokens exceeds the context of {shortest}.", hint=f"--context {shortest}"
        )
    if (largest := int(windows.tokens.max())) >= sizes[0]:
        raise Refused(
            f"The text has token {largest:,}, and the model's vocabulary only {sizes[0]:,}.",
            hint="the tokenizer belongs to another model",
        )
