"""QTensor: a weight matrix in a Format. Packed, unpacked and counted here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrimp import _core
from scrimp.errors import Refused, UsageError
from scrimp.formats import Format, packing, parse
from scrimp.formats.catalogue import Rule
from scrimp.formats.code import Codes, Rounding
from scrimp.formats.memory import by_tile, weight_array
from scrimp.formats.pairs import spread
from scrimp.formats.rounding import exact_f32, to_numbers
from scrimp.formats.scale_types import DTYPES as DTYPES
from scrimp.formats.scale_types import RANGES
from scrimp.formats.scale_types import from_f32 as from_f32
from scrimp.formats.scale_types import to_f32 as to_f32

if TYPE_CHECKING:
    from scrimp.formats.codec import Walk

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Stored = NDArray[np.generic]

#: Names of the parts of a tensor in a file, after the tensor's own name and a dot.
PLANE_PARTS = ("codes", "codes_high", "codes_third", "codes_fourth")
#: Integer scales are packed as codes are, the smallest as 0: their widths.
_PACKED_SCALES = {"u4": (4,), "u6": (4, 2), "i6": (4, 2), "i8": (8,)}
_ROWS_AT_ONCE = 1 << 16  # weights


@dataclass(frozen=True, slots=True, eq=False)
class QTensor:
    """``W (N, K)`` as code planes ``(tiles, vectors, 64)`` and scales, mins ``(tiles, groups, 16)`` (architecture §4).

    ``extra`` holds what some formats store besides: ``tensor_scale (1,)``, ``row_scales (tiles, 1, 16)`` float32, the
    ``shifts`` of pairs as a plane of 1-bit codes, ``scales_high`` and ``mins_high`` where scales are codes of 6 bits,
    ``super_scales`` and ``super_mins`` ``(tiles, super-blocks, 16)`` float16, a ``codebook``.
    """

    format: Format
    shape: tuple[int, int]
    planes: tuple[U8, ...]
    scales: Stored | None = None
    mins: Stored | None = None
    extra: Mapping[str, Stored] = field(default_factory=dict)
    dims: tuple[int, ...] | None = None  #: the shape of the array this was encoded from, where it is another

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, mins and padding."""
        return sum(part.nbytes for part in self.parts().values())

    def tiles(self, begin: int, end: int) -> QTensor:
        """Rows ``16·begin … 16·end`` as a view."""
        whole = ("tensor_scale", "codebook")

        def cut(part: Stored | None) -> Stored | None:
            return part if part is None or self.format.block == "tensor" else part[begin:end]

        rows = min(packing.TILE_ROWS * end, self.shape[0]) - packing.TILE_ROWS * begin
        planes = tuple(plane[begin:end] for plane in self.planes)
        extra = {part: values if part in whole else values[begin:end] for part, values in self.extra.items()}
        return QTensor(self.format, (rows, self.shape[1]), planes, cut(self.scales), cut(self.mins), extra)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def parts(self) -> dict[str, Stored]:
        """The arrays by the names they have in a file: ``codes``, ``codes_high``, ``scales``, ``mins``, …"""
        named: dict[str, Stored] = dict(zip(PLANE_PARTS, self.planes, strict=False))
        if self.scales is not None:
            named["scales"] = self.scales
        if self.mins is not None:
            named["mins"] = self.mins
        return named | dict(self.extra)

    def codes(self) -> Codes:
        """The codes ``(N, K)``: uint8, or uint16 above 8 bits."""
        widths = self.format.element.planes
        if sum(widths) <= 8:
            return _core.unpack_codes(self.planes, widths, self.shape)
        low, high = (
            _core.unpack_codes(self.planes[at], widths[at], self.shape) for at in (slice(0, 1), slice(1, None))
        )
        return low | high.astype(np.uint16) << 8

    def table(self) -> F32 | None:
        """The number of every code, float32: the element's or this tensor's own codebook; None where none is needed."""
        if self.format.element.kind != "table":
            return None
        own = self.extra.get("codebook")
        return self.format.element.tabulated() if own is None else own.astype(np.float32)

    def row_scales(self) -> F32:
        """Scales ``(N, groups)`` float32, second scales multiplied in."""
        assert self.scales is not None
        assert self.format.scale is not None
        if self.format.scale in _PACKED_SCALES:
            found = self._integers(self.scales, self.extra.get("scales_high"))
        else:
            found = self._by_row(self.scales, self.format.scale)
        if self.format.second == "super":
            return found * self._by_block(self.extra["super_scales"])
        if self.format.second == "tensor":
            return (found * self.extra["tensor_scale"].astype(np.float32)).astype(np.float32)
        if self.format.second == "row":
            return (found * self._by_row(self.extra["row_scales"], "f32")).astype(np.float32)
        return found

    def row_mins(self) -> F32:
        """Mins ``(N, groups)`` float32."""
        assert self.mins is not None
        assert self.format.scale is not None
        if self.format.second == "super":  # they are subtracted
            return -self._integers(self.mins, self.extra.get("mins_high")) * self._by_block(self.extra["super_mins"])
        return self._by_row(self.mins, self.format.scale)

    def decode(self) -> F32:
        """The numbers, float32, in the shape they were encoded from."""
        return self.dequantize().reshape(self.shape if self.dims is None else self.dims)

    def dequantize(self) -> F32:
        """The weights ``(N, K)``: ``scale * (step*code - zero)``, ``scale*code + min`` or ``scale * table[code]``,
        in float32 in that order."""
        element, (rows, cols) = self.format.element, self.shape
        if element.kind == "float":
            dtype = DTYPES[element.name]
            return np.ascontiguousarray(to_f32(packing.unpack_floats(self.planes[0], dtype, self.shape), element.name))
        codes = self.codes()
        if self.format.scale is None:
            return to_numbers(element, codes)
        out = np.empty(self.shape, np.float32)
        scales, mins = self.row_scales(), self.row_mins() if self.mins is not None else None
        table = self.extra["codebook"].astype(np.float32) if "codebook" in self.extra else None
        shifts = (
            _core.unpack_codes([self.extra["shifts"].view(np.uint8)], (1,), (rows, -(-cols // 2)))
            if "shifts" in self.extra
            else None
        )
        for row in range(0, rows, step := max(1, _ROWS_AT_ONCE // cols)):
            at = slice(row, row + step)
            numbers = _numbers(self.format, codes[at], table, has_min=mins is not None)
            if shifts is not None:
                numbers *= spread(shifts[at], cols)
            _by_group(np.multiply, scales[at], numbers, self.format.group(cols), out[at])
            if mins is not None:
                _by_group(np.add, mins[at], out[at], self.format.group(cols), out[at])
        return out

    def _integers(self, *planes: Stored | None) -> F32:
        """Packed integer scales ``(N, groups)``."""
        kind, shape = str(self.format.scale), (self.shape[0], self.format.groups(self.shape[1]))
        codes = _core.unpack_codes([p.view(np.uint8) for p in planes if p is not None], _PACKED_SCALES[kind], shape)
        return codes.astype(np.float32) + np.float32(RANGES[kind][0])

    def _by_block(self, stored: Stored) -> F32:
        """What super-blocks share, for each of their blocks: ``(N, groups)`` float32."""
        assert self.format.span is not None
        cols = self.shape[1]
        spread = np.repeat(self._by_row(stored, "f16"), self.format.span // self.format.group(cols), axis=1)
        return spread[:, : self.format.groups(cols)]

    def _by_row(self, stored: Stored, kind: str) -> F32:
        values = to_f32(stored, kind)
        if self.format.block == "tensor":
            return np.broadcast_to(values[0, :1, :1], (self.shape[0], 1))
        tiles, groups, _ = values.shape
        return values.transpose(0, 2, 1).reshape(tiles * packing.TILE_ROWS, groups)[: self.shape[0]]


def _numbers(format: Format, codes: Codes, table: F32 | None, *, has_min: bool) -> F32:
    if has_min:
        return codes.astype(np.float32)
    return to_numbers(format.element, codes) if table is None else table.take(codes)


def _by_group(operation: np.ufunc, per_group: F32, numbers: F32, group: int, out: F32) -> None:
    """``operation(per_group (R, g), numbers (R, K))``, the former for ``group`` columns each, the last ragged."""
    rows, cols = numbers.shape
    whole = cols // group
    # Columns are split by reshaping, which of a slice of whole rows, or of a part of each row, is a view or a copy.
    if whole * group == cols:
        operation(per_group[..., None], numbers.reshape(rows, whole, group), out=out.reshape(rows, whole, group))
        return
    for g in range(per_group.shape[1]):
        at = slice(g * group, (g + 1) * group)
        operation(per_group[:, g, None], numbers[:, at], out=out[:, at])


def encode(
    array: ArrayLike,
    format: str | Format,
    *,
    rule: Rule | None = None,
    rounding: Rounding | None = None,
    seed: int | None = None,
) -> QTensor:
    """Store ``array`` in ``format``: ``encode(w, "nf4:g64").decode()`` is what is left of it.

    Shapes
        any; the last axis is cut into blocks, the others are rows
    Rules
        ``rule`` chooses scales (formats/scales.py), ``rounding`` codes: even, away, zero, or stochastic with a ``seed``
        (0 when none is given: the same call gives the same bits). Both default to what the format defines.
    Edge cases
        A block with NaN or infinity decodes to NaN throughout. Formats without scales keep or saturate them as their
        element says, and Refuse NaN where no code means it. float64 is rounded once, not through float32, in formats
        without scales; elsewhere float32 comes first. Fewer than 16 rows are padded to 16: ``nbytes`` counts that.

    >>> encode(np.float32([0.3, -1.7, 500.0]), "fp8_e4m3").decode().tolist()
    [0.3125, -1.75, 448.0]
    """
    chosen = parse(format) if isinstance(format, str) else format
    values = np.asarray(array)
    if values.size == 0 or values.dtype.kind in "cOSUMm":
        raise UsageError(f"An array of {values.dtype} with shape {values.shape} holds no numbers to encode.",
                         hint="give it at least one real number")  # fmt: skip
    with np.errstate(over="ignore"):
        numbers = exact_f32(values) if chosen.scale is None else values.astype(np.float32, copy=False)
    matrix = np.ascontiguousarray(numbers).reshape(_sides(values.shape, chosen))
    tensor = encode_weight(matrix, chosen, rule=rule, rounding=rounding, seed=0 if seed is None else seed)
    return tensor if values.shape == tensor.shape else replace(tensor, dims=values.shape)


def encode_weight(
    weight: F32,
    format: Format,
    *,
    rule: Rule | None = None,
    rounding: Rounding | None = None,
    seed: int = 0,
    walk: Walk = map,
) -> QTensor:
    """As :func:`encode`, of a matrix ``(N, K)`` whose rows stay what they are; ``walk`` may share the work out."""
    from scrimp.formats.codec import encode_matrix  # whoever runs a network encodes nothing

    found = encode_matrix(weight, format, rule=rule, rounding=rounding, seed=seed, walk=walk)
    if format.element.kind == "float":
        return from_floats(format, found.codes)
    return from_codes(format, found.codes, found.scales, found.mins, found.extra)


def _sides(dims: tuple[int, ...], format: Format) -> tuple[int, int]:
    """Rows and columns; one long row is folded into up to 16 where that moves no weight to another block."""
    cols = dims[-1] if dims else 1
    rows = prod(dims[:-1])
    if rows == 1 and format.block != "row" and format.second != "row" and not format.element.name.startswith("kmeans"):
        unit = format.span or (format.block if isinstance(format.block, int) else 32)
        rows = next((n for n in (16, 8, 4, 2) if cols % (n * unit) == 0), 1)
        cols //= rows
    return rows, cols


def from_codes(
    format: Format,
    codes: Codes,
    scales: Stored | None,
    mins: Stored | None = None,
    extra: Mapping[str, Stored] | None = None,
) -> QTensor:
    """Codes ``(N, K)`` and scales, mins ``(N, groups)`` already in the Format's scale type → QTensor.

    For ``:tensor`` formats scales have shape ``(1, 1)``. ``extra``: as ``formats.codec.Encoded`` has it.
    """
    planes, sides = _pack(codes, format.element.planes), (codes.shape[0], codes.shape[1])
    named = {part: _stored_extra(part, values) for part, values in (extra or {}).items()}
    if format.scale in _PACKED_SCALES:
        low, widths = RANGES[format.scale][0], _PACKED_SCALES[format.scale]
        packed: dict[str, Stored] = {}
        for part, integers in (("scales", scales), ("mins", mins)):
            if integers is not None:
                fields = _pack((integers.astype(np.int16) - low).astype(np.uint8), widths)
                packed |= zip((part, f"{part}_high"), fields, strict=False)
        return QTensor(format, sides, planes, packed.pop("scales"), packed.pop("mins", None), packed | named)
    stored, stored_mins = (None if part is None else _tile_scales(format, part) for part in (scales, mins))
    return QTensor(format, sides, planes, stored, stored_mins, named)


def from_floats(format: Format, values: Stored) -> QTensor:
    """Values ``(N, K)`` in the float type of ``format`` (bf16 as uint16) → QTensor, no value changed."""
    assert values.dtype == DTYPES[format.element.name]
    rows, cols = values.shape
    plane = weight_array(part_shapes(format, (rows, cols))["codes"], np.dtype(np.uint8))
    return QTensor(format, (rows, cols), (packing.pack_floats(values, plane),))


def part_types(format: Format) -> dict[str, str]:
    """What each part of a tensor holds: ``"u8"`` for codes, else a float type of ``DTYPES``; in file order."""
    types = dict.fromkeys(PLANE_PARTS[: len(format.element.planes)], "u8")
    if format.scale is not None:
        types["scales"] = format.scale if format.scale in ("f16", "f32", "bf16") else "u8"
        if format.has_min:
            types["mins"] = types["scales"]
        if len(_PACKED_SCALES.get(format.scale, ())) > 1:
            types |= {f"{part}_high": "u8" for part in ("scales", "mins") if part in types}
        if format.second == "super":
            types |= dict.fromkeys(("super_scales", "super_mins")[: 1 + format.has_min], "f16")
        elif format.second is not None:
            types["tensor_scale" if format.second == "tensor" else "row_scales"] = "f32"
        if format.recipe is not None and format.recipe.pairs:
            types["shifts"] = "u8"
        if format.element.name.startswith("kmeans"):
            types["codebook"] = "f32"
    return types


def part_shapes(format: Format, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The parts a file must hold for a matrix of ``shape``, and the shape of each."""
    rows, cols = shape
    tiles = -(-rows // packing.TILE_ROWS)
    parts: dict[str, tuple[int, ...]] = {
        part: (tiles, -(-cols // span), packing.VECTOR_BYTES)
        for part, span in zip(PLANE_PARTS, format.element.spans(), strict=False)
    }
    groups = format.groups(cols)
    blocks = (1 if format.block == "tensor" else tiles, groups, packing.TILE_ROWS)
    widths = _PACKED_SCALES.get(format.scale or "")
    low = blocks if widths is None else (tiles, -(-groups // (32 // widths[0])), packing.VECTOR_BYTES)
    high = (tiles, -(-groups // 16), packing.VECTOR_BYTES)
    supers = (tiles, format.supers(cols), packing.TILE_ROWS)
    others: dict[str, tuple[int, ...]] = {
        "scales": low,
        "mins": low,
        "scales_high": high,
        "mins_high": high,
        "super_scales": supers,
        "super_mins": supers,
        "tensor_scale": (1,),
        "row_scales": (tiles, 1, packing.TILE_ROWS),
        "shifts": (tiles, -(-cols // 64), packing.VECTOR_BYTES),
        "codebook": (format.element.levels,),
    }
    return parts | {part: others[part] for part in part_types(format) if part in others}


def stored_bytes(format: Format, shape: tuple[int, int]) -> int:
    """Bytes a matrix of ``shape`` takes in ``format``, padding of tiles and vectors included."""
    return sum(_part_bytes(format, shape).values())


def scale_bytes(format: Format, shape: tuple[int, int]) -> int:
    """Those of :func:`stored_bytes` that are no codes."""
    return sum(nbytes for part, nbytes in _part_bytes(format, shape).items() if part not in PLANE_PARTS)


def _part_bytes(format: Format, shape: tuple[int, int]) -> dict[str, int]:
    width = {"u8": 1} | {kind: dtype.itemsize for kind, dtype in DTYPES.items()}
    types = part_types(format)
    shapes = part_shapes(format, shape)
    return {name: prod(part) * width[types[name]] for name, part in shapes.items()}


def from_parts(name: str, format: Format, shape: tuple[int, int], parts: Mapping[str, Stored]) -> QTensor:
    """Put a stored tensor together again; every part is checked against :func:`part_shapes`."""
    expected = part_shapes(format, shape)
    for part, part_shape in expected.items():
        if part not in parts:
            raise Refused(f"{name}: its part '{part}' is missing.",
                          hint="the file is incomplete; compress the model again")  # fmt: skip
        if parts[part].shape != part_shape:
            raise Refused(f"{name}.{part} has shape {parts[part].shape}; {format.name} of {shape} needs {part_shape}.",
                          hint="the file is damaged; compress the model again")  # fmt: skip
    planes = tuple(parts[part].view(np.uint8) for part in PLANE_PARTS if part in expected)
    extra = {part: parts[part] for part in expected if part not in (*PLANE_PARTS, "scales", "mins")}
    return QTensor(format, shape, planes, parts.get("scales"), parts.get("mins"), extra)


def _pack(codes: Codes, widths: tuple[int, ...]) -> tuple[U8, ...]:
    if sum(widths) <= 8:
        return tuple(_core.pack_codes(np.ascontiguousarray(codes, np.uint8), widths))
    low, high = (codes & 0xFF).astype(np.uint8), (codes >> 8).astype(np.uint8)
    return (*_core.pack_codes(low, widths[:1]), *_core.pack_codes(high, widths[1:]))


def _stored_extra(part: str, values: Stored) -> Stored:
    if part == "shifts":
        return _pack(values.astype(np.uint8), (1,))[0]
    if part in ("row_scales", "super_scales", "super_mins"):
        return by_tile(values)
    return np.ascontiguousarray(values).reshape(-1)


def _tile_scales(format: Format, values: Stored) -> Stored:
    assert format.scale is not None
    assert values.dtype == DTYPES[format.scale]
    if format.block == "tensor":
        return np.ascontiguousarray(np.broadcast_to(values.reshape(1, 1, 1), (1, 1, packing.TILE_ROWS)))
    return by_tile(values)
