"""The original: what it would say after every token, kept as the hidden states its head multiplies with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrimp.calibrate.states import hold
from scrimp.model import Model
from scrimp.quantize.decoded import decode
from scrimp.sources.source import Source
from scrimp.tensors import QTensor


class Teacher:
    """Runs in the engine, float32, when a window is first asked for; a hidden state takes a hundredth of its logits."""

    def __init__(self, source: Source, windows: NDArray[np.int32], directory: Path | None = None) -> None:
        """``windows (W, T)`` of token ids."""
        self._model = Model(source, context=windows.shape[1], arithmetic="f32")
        program = self._model.program
        self._buffer = program.ops[-1].inputs[0]
        head = source.read(program.ops[-1].weights[0])
        assert isinstance(head, QTensor)
        self.head: Tensor = torch.from_numpy(decode(head))  #: (V, K)
        self._windows = windows
        self._states = hold((*windows.shape, program.widths[self._buffer]), directory)
        self._known = np.zeros(len(windows), np.bool_)

    def hidden(self, chosen: NDArray[np.int64]) -> Tensor:
        """Hidden states ``(B, T, K)`` of some windows."""
        for window in chosen[~self._known[chosen]]:
            self._states[window] = self._run(self._windows[window])
            self._known[window] = True
        return torch.from_numpy(np.ascontiguousarray(self._states[chosen]))

    def _run(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        engine, last = self._model.engine, len(self._model.program.ops) - 1
        found = [
            engine.run(tokens[at : at + engine.chunk], at, 0, last, outputs=[self._buffer])[self._buffer]
            for at in range(0, len(tokens), engine.chunk)
        ]
        return np.concatenate(found)
