"""A stored matrix as a weight with gradients: what is trained is what is stored, rounding of the scales included.

``W = scale · number (+ min)``. Codes stay, or are rounded from latent values with the gradient passed straight through.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from scrimp.formats import Format
from scrimp.formats.code import Codes
from scrimp.formats.format import SIGNED_SCALES
from scrimp.formats.rounding import to_numbers
from scrimp.formats.scale_types import LARGEST, from_f32
from scrimp.tensors import F32, QTensor, from_codes
from scrimp.train.aligned import aligned

_DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
#: A latent code starts at most this far from its code, so that rounding gives the code back.
_NEAR = 0.49
#: Where the code is not the nearest, as GPTQ's often are not: at the border all of these would go back over it at once.
_CHOSEN = 0.25
#: Relative error beyond which a matrix is no rounding of its original, but of one rewritten before (rotated, scaled).
_REWRITTEN = 0.9


def trains(format: Format) -> bool:
    """Whether scales of this format can follow a gradient: floats with a sign, and one level of them."""
    return format.scale in SIGNED_SCALES and format.second is None and not (format.recipe and format.recipe.pairs)


def trains_codes(format: Format) -> bool:
    """Whether neighbouring codes mean neighbouring numbers, so that rounding a latent value makes sense."""
    return trains(format) and format.element.kind in ("int", "ternary", "binary") and format.element.bits <= 8


class QuantizedWeight:
    """``parameters`` hold what learns, each starting at 0 (codes: at the code) and counted in codes, so that a step of
    Adam means the same at 2 bits as at 8:

    scales   scale = stored scale · (1 + p / 2s), s the root mean square of the numbers that codes mean: p = 1 moves
             large weights by about a code
    mins     min = stored min + p · stored scale
    codes    code = round(p), clipped to the levels there are
    """

    def __init__(self, tensor: QTensor, original: F32 | None = None, *, half: bool = False) -> None:
        """``original (N, K)``: learn the codes too, starting where it lies between them. ``half``: products that a
        gradient passes are bfloat16; what is only measured stays float32."""
        assert trains(tensor.format)
        self.format, self.shape, self.half = tensor.format, tensor.shape, half
        element, cols = tensor.format.element, tensor.shape[1]
        rows = slice(0, 1 if tensor.format.block == "tensor" else None)
        self.group = tensor.format.group(cols)
        self._extra = {name: part for name, part in tensor.extra.items() if name == "codebook"}
        self._codes, self._top = tensor.codes(), element.levels - 1
        self.scales = torch.from_numpy(tensor.row_scales()[rows].copy())
        self.parameters = {"scales": torch.zeros_like(self.scales, requires_grad=True)}
        self.mins: Tensor | None = None
        if tensor.mins is not None:
            self.mins = torch.from_numpy(tensor.row_mins()[rows].copy())
            self.parameters["mins"] = torch.zeros_like(self.mins, requires_grad=True)
        self._step, self._zero = (1, 0) if self.mins is not None else (element.step, element.zero)
        self._numbers = self._pad(self._meant(self._codes))
        self._unit = self.scales / max(1.0, 2 * self._spread())
        if original is not None and trains_codes(tensor.format):
            self.parameters["codes"] = self._latent(original).requires_grad_()

    def product(self, x: Tensor) -> Tensor:
        half = self.half and torch.is_grad_enabled()
        found: Tensor = _Product.apply(x, self, half, *self.parameters.values())  # type: ignore[no-untyped-call]
        return found

    def rows(self, tokens: Tensor) -> Tensor:
        found: Tensor = _Rows.apply(tokens, self, *self.parameters.values())  # type: ignore[no-untyped-call]
        return found

    def dense(self) -> Tensor:
        """``W (N, K)`` as it will be stored and decoded; no gradient of its own."""
        with torch.no_grad():
            (scales, mins), numbers = self._stored(), self._numbers
            made = numbers * scales[:, :, None]
            if mins is not None:
                made += mins[:, :, None]
            return made.flatten(1)[:, : self.shape[1]].contiguous() if self._ragged else made.view(self.shape)

    def dense_rows(self, at: Tensor) -> Tensor:
        """Some rows of :meth:`dense`: (n,) → (n, K)."""
        with torch.no_grad():
            (scales, mins), numbers = self._stored(), self._numbers
            one = self.format.block == "tensor"
            made = numbers[at] * (scales if one else scales[at])[:, :, None]
            if mins is not None:
                made += (mins if one else mins[at])[:, :, None]
            return made.flatten(1)[:, : self.shape[1]]

    def gradients(self, dense: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient with respect to :meth:`dense` → those of the parameters, in their order."""
        blocks = self._pad(dense)
        whole = (0, 2) if self.format.block == "tensor" else (2,)
        shape = self.scales.shape
        found: list[Tensor | None] = [(blocks * self._numbers).sum(whole).view(shape) * self._unit]
        if self.mins is not None:
            found.append(blocks.sum(whole).view(shape) * self.scales)
        if "codes" in self.parameters:
            steps = self._stored()[0][:, :, None] * self._step
            found.append((blocks * steps).flatten(1)[:, : self.shape[1]])
        return tuple(found)

    def settle(self) -> None:
        """After latent codes moved: back into the levels there are, beyond which they would never be felt again, and
        rounded anew."""
        if "codes" in self.parameters:
            latent = self.parameters["codes"].data.clamp_(-0.5, self._top + 0.5)
            self._codes = latent.round().clamp_(0, self._top).to(torch.uint8).numpy()
            self._numbers = self._pad(self._meant(self._codes))

    def tensor(self) -> QTensor:
        """The matrix as it is stored, with the same parts of the same sizes."""
        kind = str(self.format.scale)
        scales, mins = (None if part is None else from_f32(part.numpy(), kind) for part in self._stored())
        return from_codes(self.format, self._codes, scales, mins, self._extra)

    @property
    def _ragged(self) -> bool:
        return self.shape[1] % self.group != 0

    def _stored(self) -> tuple[Tensor, Tensor | None]:
        """Scales and mins as they are after rounding to their type."""
        with torch.no_grad():
            scales = self._rounded(self.scales + self.parameters["scales"] * self._unit)
            mins = None if self.mins is None else self._rounded(self.mins + self.parameters["mins"] * self.scales)
            return scales, mins

    def _spread(self) -> float:
        """Root mean square of the numbers, of their distance from the middle where there is a min."""
        numbers = self._numbers.float()
        return float((numbers - numbers.mean() if self.mins is not None else numbers).square().mean().sqrt())

    def _rounded(self, values: Tensor) -> Tensor:
        largest = LARGEST[str(self.format.scale)]
        return values.clamp(-largest, largest).to(_DTYPES[str(self.format.scale)]).float()

    def _meant(self, codes: Codes) -> Tensor:
        """What codes ``(N, K)`` mean before scale and min, in as few bytes as hold it."""
        if self.mins is not None:
            return torch.from_numpy(codes if codes.dtype == np.uint8 else codes.astype(np.int32))
        if "codebook" in self._extra:
            return torch.from_numpy(self._extra["codebook"].astype(np.float32)[codes])
        element = self.format.element
        if element.kind == "table":
            return torch.from_numpy(to_numbers(element, codes))
        wide = codes.astype(np.int32) * element.step - element.zero
        return torch.from_numpy(wide.astype(np.int8) if wide.min() >= -128 and wide.max() <= 127 else wide)

    def _pad(self, values: Tensor) -> Tensor:
        missing = -self.shape[1] % self.group
        padded = functional.pad(values, (0, missing)) if missing else values
        return padded.view(self.shape[0], -1, self.group)

    def _latent(self, original: F32) -> Tensor:
        """Where ``original`` lies between the codes, no farther from the code than rounding allows; on the codes where
        it says nothing of them."""
        scales, mins = self._stored()
        original = aligned(original, self.dense().numpy())
        steps = self._pad(torch.from_numpy(original)) - (0 if mins is None else mins[:, :, None])
        safe = torch.where(scales == 0, torch.inf, scales)[:, :, None]
        steps = ((steps / safe).flatten(1)[:, : self.shape[1]] + self._zero) / self._step
        codes = torch.from_numpy(self._codes).float()
        apart = self.dense() - torch.from_numpy(original)
        if float(apart.norm()) > _REWRITTEN * float(np.linalg.norm(original)):
            return codes
        off = steps - codes
        off = torch.where(off.abs() <= 0.5, off.clamp(-_NEAR, _NEAR), off.clamp(-_CHOSEN, _CHOSEN))
        return (codes + off).contiguous()


class FixedWeight:
    """A matrix that does not learn: ``(N, K)`` float32."""

    def __init__(self, dense: F32, *, half: bool = False) -> None:
        self._dense, self.half = torch.from_numpy(dense), half

    def product(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._dense)

    def rows(self, tokens: Tensor) -> Tensor:
        return self._dense[tokens]

    def dense(self) -> Tensor:
        return self._dense


class _Product(Function):
    """``x Wᵀ``. W is made again for the way back: that costs a hundredth of a product, and saves a copy of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: QuantizedWeight, half: bool, *parameters: Tensor) -> Tensor:
        ctx.weight, ctx.kind = weight, torch.bfloat16 if half else torch.float32
        x = x.to(ctx.kind)
        ctx.save_for_backward(x)
        return functional.linear(x, weight.dense().to(ctx.kind)).float()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (x,), gradient = ctx.saved_tensors, given[0].flatten(0, -2).to(ctx.kind)
        back = (gradient @ ctx.weight.dense().to(ctx.kind)).float().view(x.shape) if ctx.needs_input_grad[0] else None
        learns = any(ctx.needs_input_grad[3:])
        own = ctx.weight.gradients((gradient.T @ x.flatten(0, -2)).float()) if learns else ()
        return back, None, None, *(own or [None] * (len(ctx.needs_input_grad) - 3))


class _Rows(Function):
    """Rows of W by token."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: QuantizedWeight, *parameters: Tensor) -> Tensor:
        ctx.weight = weight
        ctx.save_for_backward(tokens)
        return weight.dense_rows(tokens.flatten()).view(*tokens.shape, -1)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        (tokens,) = ctx.saved_tensors
        if not any(ctx.needs_input_grad[2:]):
            return (None,) * len(ctx.needs_input_grad)
        dense = torch.zeros(ctx.weight.shape)
        dense.index_add_(0, tokens.flatten(), given[0].flatten(0, -2))
        return None, None, *ctx.weight.gradients(dense)
