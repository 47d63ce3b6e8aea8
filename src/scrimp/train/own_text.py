"""The original's own text: what it writes when nobody asks, for recovery where no text like its own is at hand.

Source: Liu et al. 2023, "LLM-QAT", arXiv:2305.17888, section 3.1: a random first token, the next few the likeliest,
the rest drawn from the whole distribution.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scrimp import models
from scrimp.quantize.decoded import decode
from scrimp.sources.source import Source
from scrimp.tensors import QTensor
from scrimp.train.executor import Network, Past, run
from scrimp.train.quantized_weight import FixedWeight

#: Texts that are written side by side: a step reads all weights once for all of them.
BATCH = 32
#: Tokens after the first that are the likeliest ones.
GREEDY = 4


def write(
    original: Source,
    windows: int,
    length: int,
    *,
    bos: int | None = None,
    seed: int = 0,
    tick: Callable[[int], None] = lambda tokens: None,
) -> NDArray[np.int32]:
    """``(windows, length)`` token ids, in float32; the same seed gives the same text on one machine.

    ``bos`` stands first where the tokenizer puts one. ``tick`` is told how many tokens were written.
    """
    network = _network(original)
    generator = torch.Generator().manual_seed(seed)
    parts = [np.zeros((0, length), np.int32)]
    with torch.no_grad():
        for begin in range(0, windows, BATCH):
            parts.append(_batch(network, min(BATCH, windows - begin), length, bos, generator, tick))
    return np.concatenate(parts)


def recalled(path: Path, shape: tuple[int, int], rows: int) -> NDArray[np.int32] | None:
    """What :func:`remember` kept: ids below ``rows`` in this shape, or None where the file is anything else."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.int32:
        return None
    return found if found.min() >= 0 and found.max() < rows else None


def remember(path: Path, written: NDArray[np.int32]) -> None:
    """Keep a text for the next recovery, and for this one begun anew; where there is no room, it is written again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, written)
        os.replace(file.name, path)


def _network(original: Source) -> Network:
    _, program = models.build(original.config)
    read = {name: original.read(name) for name in (*program.matrices, *program.vectors)}
    return Network(
        program,
        {name: FixedWeight(decode(found)) for name, found in read.items() if isinstance(found, QTensor)},
        {name: torch.from_numpy(np.array(found)) for name, found in read.items() if not isinstance(found, QTensor)},
    )


def _batch(
    network: Network,
    count: int,
    length: int,
    bos: int | None,
    generator: torch.Generator,
    tick: Callable[[int], None],
) -> NDArray[np.int32]:
    output = network.program.output
    vocabulary = network.program.widths[output]
    text = torch.zeros((count, length), dtype=torch.int64)
    begin = 0 if bos is None else 1
    text[:, :begin] = bos or 0
    text[:, begin] = torch.randint(vocabulary, (count,), generator=generator)
    past = Past(length)
    for at in range(length - 1):
        (logits,) = run(network, text[:, at : at + 1], (output,), past=past)
        tick(count)
        if at < begin:
            continue  # the token behind BOS is there already
        if at - begin < GREEDY:
            text[:, at + 1] = logits[:, 0].argmax(dim=-1)
        else:
            text[:, at + 1] = torch.multinomial(logits[:, 0].softmax(dim=-1), 1, generator=generator)[:, 0]
    return text.numpy().astype(np.int32)
