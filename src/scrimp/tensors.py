"""QTensor: a weight matrix in a Format. Packed, unpacked and counted here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrimp import _core
from scrimp.errors import Refused
from scrimp.formats import Format, packing

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Stored = NDArray[np.generic]

#: Names of the parts of a tensor in a file, after the tensor's own name and a dot.
PLANE_PARTS = ("codes", "codes_high")

#: NumPy has no bfloat16: its bits are kept in uint16.
DTYPES: dict[str, np.dtype[np.generic]] = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
}


def to_f32(values: Stored, kind: str) -> F32:
    """Stored floats of ``kind`` f32, f16 or bf16 (as uint16) → float32, exactly."""
    if kind == "bf16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32, copy=False)


def from_f32(values: F32, kind: str) -> Stored:
    """float32 → ``kind``, rounded to nearest even; out of range becomes infinity."""
    if kind == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype(np.uint16)
    with np.errstate(over="ignore"):
        return values.astype(DTYPES[kind])


@dataclass(frozen=True, slots=True, eq=False)
class QTensor:
    """``W (N, K)`` as code planes ``(tiles, vectors, 64)`` and scales, mins ``(tiles, groups, 16)`` (architecture §4)."""

    format: Format
    shape: tuple[int, int]
    planes: tuple[U8, ...]
    scales: Stored | None = None
    mins: Stored | None = None

    @property
    def nbytes(self) -> int:
        """Bytes stored: codes, scales, mins and padding."""
        return sum(part.nbytes for part in self.parts().values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def parts(self) -> dict[str, Stored]:
        """The arrays by the names they have in a file: ``codes``, ``codes_high``, ``scales``, ``mins``."""
        named: dict[str, Stored] = dict(zip(PLANE_PARTS, self.planes, strict=False))
        if self.scales is not None:
            named["scales"] = self.scales
        if self.mins is not None:
            named["mins"] = self.mins
        return named

    def codes(self) -> U8:
        """The codes ``(N, K)`` uint8."""
        return _core.unpack_codes(self.planes, self.format.element.planes, self.shape)

    def row_scales(self) -> F32:
        """Scales ``(N, groups)`` float32."""
        assert self.scales is not None
        return self._by_row(self.scales)

    def row_mins(self) -> F32:
        """Mins ``(N, groups)`` float32."""
        assert self.mins is not None
        return self._by_row(self.mins)

    def dequantize(self) -> F32:
        """The weights ``(N, K)`` float32: ``scale * (step*code - zero)`` or ``scale*code + min``, in float32 in that order."""
        element = self.format.element
        if self.format.scale is None:
            dtype = DTYPES[element.name]
            return np.ascontiguousarray(to_f32(packing.unpack_floats(self.planes[0], dtype, self.shape), element.name))
        group = self.format.group(self.shape[1])
        codes = self.codes()
        out = np.empty(self.shape, np.float32)
        scales = self.row_scales()
        mins = self.row_mins() if self.mins is not None else None
        for g in range(scales.shape[1]):
            cols = slice(g * group, (g + 1) * group)
            if mins is not None:
                out[:, cols] = scales[:, g, None] * codes[:, cols].astype(np.float32) + mins[:, g, None]
            else:
                steps = (element.step * codes[:, cols].astype(np.int32) - element.zero).astype(np.float32)
                out[:, cols] = scales[:, g, None] * steps
        return out

    def _by_row(self, stored: Stored) -> F32:
        assert self.format.scale is not None
        values = to_f32(stored, self.format.scale)
        if self.format.block == "tensor":
            return np.broadcast_to(values[0, :1, :1], (self.shape[0], 1))
        tiles, groups, _ = values.shape
        return values.transpose(0, 2, 1).reshape(tiles * packing.TILE_ROWS, groups)[: self.shape[0]]


def from_codes(format: Format, codes: U8, scales: Stored, mins: Stored | None = None) -> QTensor:
    """Codes ``(N, K)`` uint8 and scales, mins ``(N, groups)`` already in the Format's scale type → QTensor.

    For ``:tensor`` formats scales have shape ``(1, 1)``.
    """
    planes = tuple(_core.pack_codes(np.ascontiguousarray(codes), format.element.planes))
    stored_mins = None if mins is None else _tile_scales(format, mins)
    return QTensor(format, (codes.shape[0], codes.shape[1]), planes, _tile_scales(format, scales), stored_mins)


def from_floats(format: Format, values: Stored) -> QTensor:
    """Values ``(N, K)`` in the float type of ``format`` (bf16 as uint16) → QTensor, no value changed."""
    assert values.dtype == DTYPES[format.element.name]
    return QTensor(format, (values.shape[0], values.shape[1]), (packing.pack_floats(values),))


def part_shapes(format: Format, shape: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """The parts a file must hold for a matrix of ``shape``, and the shape of each."""
    rows, cols = shape
    tiles = -(-rows // packing.TILE_ROWS)
    parts: dict[str, tuple[int, ...]] = {
        part: (tiles, -(-cols // span), packing.VECTOR_BYTES)
        for part, span in zip(PLANE_PARTS, format.element.spans(), strict=False)
    }
    if format.scale is not None:
        scale_shape = (1 if format.block == "tensor" else tiles, format.groups(cols), packing.TILE_ROWS)
        parts["scales"] = scale_shape
        if format.has_min:
            parts["mins"] = scale_shape
    return parts


def stored_bytes(format: Format, shape: tuple[int, int]) -> int:
    """Bytes a matrix of ``shape`` takes in ``format``, padding of tiles and vectors included."""
    scale_bytes = DTYPES[format.scale].itemsize if format.scale else 0
    return sum(
        int(np.prod(part)) * (1 if name in PLANE_PARTS else scale_bytes)
        for name, part in part_shapes(format, shape).items()
    )


def from_parts(name: str, format: Format, shape: tuple[int, int], parts: Mapping[str, Stored]) -> QTensor:
    """Put a stored tensor together again; every part is checked against :func:`part_shapes`."""
    expected = part_shapes(format, shape)
    for part, part_shape in expected.items():
        if part not in parts:
            raise Refused(f"{name}: its part '{part}' is missing.", hint="the file is incomplete; compress the model again")
        if parts[part].shape != part_shape:
            raise Refused(f"{name}.{part} has shape {parts[part].shape}; {format.name} of {shape} needs {part_shape}.",
                          hint="the file is damaged; compress the model again")  # fmt: skip
    planes = tuple(parts[part].view(np.uint8) for part in PLANE_PARTS if part in expected)
    return QTensor(format, shape, planes, parts.get("scales"), parts.get("mins"))


def _tile_scales(format: Format, values: Stored) -> Stored:
    assert format.scale is not None and values.dtype == DTYPES[format.scale]
    if format.block == "tensor":
        return np.ascontiguousarray(np.broadcast_to(values.reshape(1, 1, 1), (1, 1, packing.TILE_ROWS)))
    padded = np.pad(values, ((0, -values.shape[0] % packing.TILE_ROWS), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, packing.TILE_ROWS, values.shape[1]).transpose(0, 2, 1))
