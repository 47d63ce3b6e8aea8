"""What a stored number means: elements, formats and their packing, in NumPy: the slow, obvious truth, and fast ways.

>>> import numpy as np; from scrimp.formats import encode
>>> q = encode(np.float32([[0.11, -0.52, 1.0, 0.0]]), "nf4:g64")
>>> q.codes().tolist(), [round(float(v), 4) for v in q.decode()[0]]
([[8, 2, 15, 7]], [0.0796, -0.5251, 1.0, 0.0])
"""

from __future__ import annotations

import importlib
from typing import Any

from scrimp.formats.catalogue import ELEMENTS, NAMED
from scrimp.formats.element import Element
from scrimp.formats.format import Format, parse

__all__ = ["ELEMENTS", "NAMED", "Element", "Format", "encode", "load", "parse", "save"]

#: These make or take QTensors, which are defined in terms of this package: found there on first use.
_HOMES = {"encode": "scrimp.tensors", "load": "scrimp.store.tensor_file", "save": "scrimp.store.tensor_file"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scrimp.formats' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
