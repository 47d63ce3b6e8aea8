"""The threads that quantization works with: made once, shared by all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

from scrimp.engine import default_threads


@cache
def pool(threads: int | None = None) -> ThreadPoolExecutor:
    """As many threads as the engine would use, unless told otherwise. NumPy and the core work without Python's lock."""
    return ThreadPoolExecutor(threads or default_threads(), thread_name_prefix="quantize")
