"""scrimp: make a neural network small, run it on what you have, and know exactly what you lost."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scrimp import formats as formats
    from scrimp.errors import ScrimpError as ScrimpError
    from scrimp.measure.evaluate import evaluate as evaluate
    from scrimp.model import Model as Model
    from scrimp.model import open_any as open
    from scrimp.quantize.compress import compress as compress

__version__ = "0.1.0"
__all__ = ["Model", "ScrimpError", "__version__", "compress", "evaluate", "formats", "open"]

#: public name → where it lives; imported on first use, so that ``import scrimp`` stays quick.
_HOMES = {
    "Model": ("scrimp.model", "Model"),
    "ScrimpError": ("scrimp.errors", "ScrimpError"),
    "compress": ("scrimp.quantize.compress", "compress"),
    "evaluate": ("scrimp.measure.evaluate", "evaluate"),
    "open": ("scrimp.model", "open_any"),
}


def __getattr__(name: str) -> Any:
    if name == "formats":
        return importlib.import_module("scrimp.formats")
    if name not in _HOMES:
        raise AttributeError(f"module 'scrimp' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
