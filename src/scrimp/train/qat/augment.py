"""Batches of pictures as a network in training sees them: bytes in, bytes out, the same for the same random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from scrimp.pictures.pictures import U8, overlaps
from scrimp.train.qat.recipe import Augmentation

#: Points on a side of the coarse grid of elastic deformations (Simard, Steinkraus and Platt 2003, section 2).
_GRID = 5


@dataclass(frozen=True, slots=True)
class Augmenter:
    """``fill`` is the byte that means 0; ``size`` what comes out, where it is another."""

    how: Augmentation
    fill: int
    size: tuple[int, int] | None = None

    def __call__(self, images: U8, random: np.random.Generator) -> U8:
        """(n, height, width, channels) → the same, or of ``size``."""
        how = self.how
        if how.crop or how.flip:
            images = _crops(images, how, self.fill, random)
        if how.cutout:
            images = _cut_out(images, how.cutout, self.fill, random)
        if not how.warps and (self.size is None or images.shape[1:3] == self.size):
            return images
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        if how.warps:
            x = _warp(x - self.fill, how, random) + self.fill
            x = x.round_().clamp_(0, 255)
        if self.size is not None:
            x = _resized(x, self.size)
        return x.permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()


def _crops(images: U8, how: Augmentation, fill: int, random: np.random.Generator) -> U8:
    """Each from another place of its padded self, every second one mirrored."""
    n, height, width, _ = images.shape
    pad = how.crop
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=fill) if pad else images
    rows = random.integers(0, 2 * pad + 1, (n, 1)) + np.arange(height)
    columns = random.integers(0, 2 * pad + 1, (n, 1)) + np.arange(width)
    mirrored = (random.random((n, 1)) < 0.5) & how.flip
    columns = np.where(mirrored, columns[:, ::-1], columns)
    made: U8 = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return made


def _cut_out(images: U8, side: int, fill: int, random: np.random.Generator) -> U8:
    """A square of zeros whose centre is anywhere (DeVries and Taylor 2017, arXiv:1708.04552)."""
    n, height, width, _ = images.shape
    inside = [
        np.abs(np.arange(length)[None, :] - random.integers(0, length, (n, 1)) + 0.5) <= side / 2
        for length in (height, width)
    ]
    return np.where((inside[0][:, :, None] & inside[1][:, None, :])[..., None], np.uint8(fill), images)


def _warp(x: Tensor, how: Augmentation, random: np.random.Generator) -> Tensor:
    """Turned, scaled, sheared, shifted and bent, with bilinear interpolation; beyond the edges lies 0."""
    n, _, height, width = x.shape
    grid = functional.affine_grid(
        _matrices(n, how, (height, width), random), [n, 1, height, width], align_corners=False
    )
    if how.elastic:
        moves = random.normal(0, how.elastic, (n, 2, _GRID, _GRID)).astype(np.float32)
        moves *= 2 / np.array([width, height], np.float32)[None, :, None, None]
        smooth = functional.interpolate(torch.from_numpy(moves), (height, width), mode="bicubic", align_corners=True)
        grid = grid + smooth.permute(0, 2, 3, 1)
    return functional.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def _matrices(n: int, how: Augmentation, sides: tuple[int, int], random: np.random.Generator) -> Tensor:
    """(n, 2, 3): from the place of a new pixel to its place in the old picture, both in −1 … 1."""

    def spread(most: float, count: tuple[int, ...] = (n,)) -> NDArray[np.float64]:
        return random.uniform(-most, most, count)

    turn, shear = spread(math.radians(how.rotate)), np.tan(spread(math.radians(how.shear)))
    grow = 1 / (1 + spread(how.scale))
    cos, sin = np.cos(turn) * grow, np.sin(turn) * grow
    shift = spread(how.shift, (n, 2)) * 2 / np.array(sides[::-1])
    matrix = np.stack([np.stack([cos, shear * cos - sin, shift[:, 0]], 1),
                       np.stack([sin, shear * sin + cos, shift[:, 1]], 1)], 1)  # fmt: skip
    return torch.from_numpy(matrix.astype(np.float32))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """scrimp.pictures' rule; sums of float32 are exact below 2^24, which sides of 256 and bytes stay within."""
    rows, columns = x.shape[2:]
    down, across = (
        torch.from_numpy(overlaps(*sides).astype(np.float32)) for sides in zip((rows, columns), size, strict=True)
    )
    area = rows * columns
    return ((down @ x @ across.T + area // 2) / area).floor_()
