"""A Net and its tensors from a source: what lowering starts with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scrimp import models
from scrimp.errors import Refused
from scrimp.models import cnn
from scrimp.models.cnn import Net
from scrimp.sources.source import Source
from scrimp.tensors import QTensor

#: Name → tensor, as :meth:`Net.tensors` lists them: weights are QTensors, all else float32 vectors.
Tensors = Mapping[str, QTensor | NDArray[np.float32]]


def read(source: Source) -> tuple[Net, Tensors]:
    """The Net of a source's config and all of its tensors, each checked. Refused where it is a network of text."""
    if not models.sees(source.config):
        raise Refused(f"{source.path} is no network of pictures.", hint="scrimp run MODEL writes text with it")
    return cnn.parse(source.config), {name: source.read(name) for name in source.tensors}
