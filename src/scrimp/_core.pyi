"""The compiled core: kernels, packing, the engine. ``core/bind*.cpp`` are its source."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def available_isas() -> list[str]: ...
def cpu_features() -> list[str]: ...
def weight_bytes(bytes: int) -> NDArray[np.uint8]: ...
def pack_codes(codes: NDArray[np.uint8], widths: Sequence[int]) -> list[NDArray[np.uint8]]: ...
def unpack_codes(
    planes: Sequence[NDArray[np.uint8]], widths: Sequence[int], shape: tuple[int, int]
) -> NDArray[np.uint8]: ...

#: Positions of a sequence that lie together.
PAGE_POSITIONS: int

def page_bytes(caches: Sequence[tuple[int, int]], cache: int, cache_block_log2: int) -> int: ...

RANGE_BITS: int
HIGHEST_BYTE: int

class Malformed(ValueError): ...

def frequencies(stored: NDArray[np.uint8]) -> NDArray[np.uint16]: ...
def rans_encode(
    codes: NDArray[np.uint8],
    row_class: NDArray[np.uint8],
    col_class: NDArray[np.uint8],
    tables: NDArray[np.uint8],
    frequencies: NDArray[np.uint16],
    segment_rows: int,
    threads: int = 1,
) -> tuple[NDArray[np.uint8], list[int]]: ...
def rans_decode(
    stream: NDArray[np.uint8],
    ends: Sequence[int],
    shape: tuple[int, int],
    row_class: NDArray[np.uint8],
    col_class: NDArray[np.uint8],
    tables: NDArray[np.uint8],
    frequencies: NDArray[np.uint16],
    segment_rows: int,
    widths: Sequence[int],
    threads: int = 1,
) -> list[NDArray[np.uint8]]: ...
def count_codes(
    codes: NDArray[np.uint8], row_class: NDArray[np.uint8], col_class: NDArray[np.uint8]
) -> NDArray[np.uint64]: ...
def spreads(
    codes: NDArray[np.uint8], squares: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def linear(
    matrix: Matrix,
    x: NDArray[np.float32],
    isa: str,
    float_arithmetic: bool = False,
    activation_block: int = 32,
    input_scale: float = 0.0,
) -> NDArray[np.float32]: ...
def score(
    logits: NDArray[np.float32],
    targets: NDArray[np.int32],
    reference: NDArray[np.float32] | None = None,
    threads: int = 1,
    isa: str = "scalar",
) -> dict[str, NDArray[Any]]: ...
def weighted_sums(
    rounding: Rounding,
    w: NDArray[np.float32],
    importance: NDArray[np.float32],
    scales: NDArray[np.float32],
    divisors: NDArray[np.float32],
    lows: NDArray[np.float32] | None,
    sums: NDArray[np.float32],
    isa: str,
) -> None: ...
def sweep(
    rounding: Rounding,
    weights: NDArray[np.float32],
    feedback: NDArray[np.float32],
    group: NDArray[np.int32],
    scales: NDArray[np.float32],
    divisors: NDArray[np.float32],
    lows: NDArray[np.float32] | None,
    codes: NDArray[np.uint16],
    begin: int,
    end: int,
    strip_begin: int,
    strip_end: int,
    isa: str,
) -> None: ...
def sweep_both(
    rounding: Rounding,
    weights: NDArray[np.float32],
    by_input: NDArray[np.float32],
    by_row: NDArray[np.float32],
    group: NDArray[np.int32],
    scales: NDArray[np.float32],
    divisors: NDArray[np.float32],
    lows: NDArray[np.float32] | None,
    codes: NDArray[np.uint16],
    isa: str,
) -> None: ...
def scan_symmetric(
    w: NDArray[np.float32],
    half: int,
    peaks: NDArray[np.float64],
    coarse: NDArray[np.float64],
    fine: NDArray[np.float64],
    fits: NDArray[np.float64],
    isa: str,
) -> None: ...
def add_moments(x: NDArray[np.float32], moments: NDArray[np.float64], threads: int, isa: str) -> None: ...
def add_cross_moments(
    a: NDArray[np.float32], b: NDArray[np.float32], moments: NDArray[np.float64], threads: int, isa: str
) -> None: ...
def cholesky(a: NDArray[np.float64], threads: int, isa: str) -> bool: ...
def explain_bus_errors() -> None: ...
def read_bandwidth(bytes: int, threads: int, repeats: int = 5, least: int = 0, isa: str = "") -> list[float]: ...
def read_arrays(arrays: Sequence[NDArray[np.uint8]], threads: int, isa: str) -> float: ...
def peak(numbers: str, threads: int, repeats: int, isa: str) -> list[float]: ...

#: Rows that :func:`sweep` rounds together.
STRIP_ROWS: int

class Rounding:
    @staticmethod
    def integers(least: float, most: float) -> Rounding: ...
    @staticmethod
    def table(bounds: NDArray[np.float32], numbers: NDArray[np.float32], codes: NDArray[np.uint16]) -> Rounding: ...

class Matrix:
    def __init__(
        self,
        element: int,
        bits: int,
        rows: int,
        cols: int,
        planes: Sequence[NDArray[np.uint8]],
        spans: Sequence[int],
        step: int,
        zero: int,
        scale_type: int,
        scales: NDArray[Any] | None,
        mins: NDArray[Any] | None,
        group: int,
        one_scale: bool,
        numbers: Sequence[float] = ...,
        steps: Sequence[int] = ...,
        factor: float = ...,
    ) -> None: ...
    def decode_rows(self, begin: int, end: int) -> NDArray[np.float32]: ...

class Engine:
    def __init__(
        self,
        ops: Sequence[tuple[Any, ...]],
        places: Sequence[tuple[int, int]],
        arena: int,
        output: int,
        matrices: Sequence[Matrix],
        vectors: Sequence[NDArray[np.float32]],
        caches: Sequence[tuple[int, int]],
        context: int,
        pages: int,
        chunk: int,
        threads: int,
        float_arithmetic: bool,
        activation_block: int,
        cache: int,
        cache_block_log2: int,
        isa: str,
    ) -> None: ...
    def run(
        self,
        tokens: NDArray[np.int32],
        spans: NDArray[np.int64],
        tables: NDArray[np.int32],
        first: int,
        last: int,
        logits: NDArray[np.float32] | None,
        inputs: Sequence[tuple[int, NDArray[np.float32]]] = ...,
        outputs: Sequence[tuple[int, NDArray[np.float32]]] = ...,
    ) -> None: ...
    def copy_page(self, from_: int, to: int) -> None: ...
    def seconds(self) -> list[float]: ...
    def runs(self) -> int: ...
    def reset_profile(self) -> None: ...
    def isa(self) -> str: ...

class IntegerEngine:
    def __init__(
        self,
        ops: Sequence[tuple[Any, ...]],
        buffers: Sequence[tuple[int, int, int]],
        zero: int,
        pixel_shift: int,
        threads: int,
        isa: str,
    ) -> None: ...
    def run(self, pictures: NDArray[np.uint8], logits: NDArray[np.int32]) -> None: ...
    @property
    def classes(self) -> int: ...
    @property
    def isa(self) -> str: ...
