"""torch is an extra: whoever trains asks here first, and gets one sentence when it is missing."""

from __future__ import annotations

import importlib

from scrimp import _core
from scrimp.engine import default_threads
from scrimp.errors import ScrimpError


def require_torch(what: str = "Training") -> None:
    """``what`` needs torch: ScrimpError when it or a library of it cannot be loaded; else torch takes as many threads
    as the engine."""
    try:
        torch = importlib.import_module("torch")
    except (ImportError, OSError) as error:
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be imported"
        raise ScrimpError(f"{what} needs torch, which {why}.", hint="pip install 'scrimp[train]'") from error
    torch.set_num_threads(min(default_threads(), torch.get_num_threads()))


def has_fast_halves() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32 (twice and more, through oneDNN)."""
    return "avx512_bf16" in _core.cpu_features()
