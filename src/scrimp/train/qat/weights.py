"""A weight in training: latent numbers, and what is stored of them, which is what the network multiplies with.

The way back is straight through the rounding (Bengio et al. 2013, arXiv:1308.3432), with these rules::

    absmean  scale = mean |w|; the gradient passes everywhere               Ma et al. 2024, arXiv:2402.17764 (b1.58)
    sign     ±mean |w|; the gradient passes where |w| < scale               Rastegari et al. 2016, arXiv:1603.05279
    absmax   scale = max |w| / largest number; passes everywhere
    octav    clipping point by Newton's iteration; beyond it the gradient
             shrinks as clip / |w|                                          Sakr et al. 2022, arXiv:2206.06501
    lsq      learned scale, gradient passes within the levels               Esser et al. 2020, arXiv:1902.08153
    seq      the same with levels that fill the range, passes up to
             99 % of it: 1½ scales for ternary, 2 for two bits              Liu et al. 2025, arXiv:2502.02631
    kmeans   learned levels, in 64ths of the scale: each follows the sum of
             its weights' gradients                                         Han et al. 2016, arXiv:1510.00149
    format   the format's own rule through formats.encode; passes everywhere

Scales are rounded to the type they are stored in before anything is divided by them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from scrimp.formats import Format
from scrimp.formats.scale_types import from_f32
from scrimp.tensors import QTensor, encode_weight, from_codes, from_floats
from scrimp.train.qat.rules import Rule, levels
from scrimp.train.qat.scales import as_stored, chosen, first, from_blocks, in_64ths, lloyd, to_blocks
from scrimp.train.qat.straight_through import Nearest, Rounded, Slowed, middles, through, to_codes

#: Of a learned scale over its first value.
_LEAST = 0.01


class TrainedWeight(nn.Module):
    """``W (N, K)``, K in the order it is stored in.

    ``latent`` (N, K) learns; so does ``scale`` under lsq and seq, counted in the scales it began with (``first``), so
    that a step of Adam means the same everywhere; and ``codebook`` under kmeans.
    """

    latent: nn.Parameter
    first: Tensor  #: (rows, groups, 1)

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.latent = nn.Parameter(torch.empty(rows, columns))
        self.scale = nn.Parameter(torch.ones(1))
        self.codebook = nn.Parameter(torch.zeros(1))
        self.register_buffer("first", torch.ones(1))
        self.format: Format | None = None
        self.rule: Rule = "float"

    def store_as(self, format: Format, rule: Rule) -> None:
        """From now on in ``format``; where it is another, learned scales and levels begin anew."""
        if (self.format, self.rule) == (format, rule):
            return
        self.format, self.rule = format, rule
        if rule in ("lsq", "seq", "kmeans"):
            with torch.no_grad():
                blocks = to_blocks(self.latent, format)
                self.first = first(blocks, format, rule)
                self.scale = nn.Parameter(torch.ones_like(self.first))
                if rule == "kmeans":
                    self.codebook = nn.Parameter(lloyd(blocks / self.first, format.element.levels))

    def hold(self, frozen: bool) -> None:
        """Whether codes and scales stay as they are."""
        for values in (self.latent, self.scale, self.codebook):
            values.requires_grad_(not frozen)

    def forward(self) -> Tensor:
        """``Ŵ (N, K)`` as it will be stored and decoded."""
        format = self.format
        if format is None or self.rule == "float":
            return self.latent
        if self.rule == "format":
            made = torch.from_numpy(encode_weight(self.latent.detach().numpy(), format).dequantize())
            return through(self.latent, made)
        blocks = to_blocks(self.latent, format)
        scales = self._scales(blocks, format)
        if self.rule == "kmeans":
            made = Nearest.apply(blocks, scales, in_64ths(self.codebook))  # type: ignore[no-untyped-call]
        else:
            made = Rounded.apply(blocks, scales, levels(format, self.rule), self.rule)  # type: ignore[no-untyped-call]
        return from_blocks(made, self.latent, format)

    def settle(self) -> None:
        """After a step: scales stay positive, levels in order."""
        with torch.no_grad():
            self.scale.clamp_(min=_LEAST)
            self.codebook.copy_(self.codebook.sort().values)

    def tensor(self) -> QTensor:
        """As it is stored: the codes and scales that :meth:`forward` used."""
        format = self.format
        assert format is not None
        weight = self.latent.detach().numpy()
        if self.rule == "float":
            return from_floats(format, np.ascontiguousarray(weight))
        if self.rule == "format":
            return encode_weight(np.ascontiguousarray(weight), format)
        with torch.no_grad():
            blocks = to_blocks(self.latent, format)
            scales = self._scales(blocks, format)
            if self.rule == "kmeans":
                book = in_64ths(self.codebook)
                codes = torch.bucketize(blocks / scales, middles(book))
            else:
                known = levels(format, self.rule)
                book = torch.arange(known.top + 1) * known.step - known.zero
                codes = to_codes(blocks / scales, known)
            plain = from_blocks(codes, self.latent, format).to(torch.uint8).numpy()
            stored = from_f32(scales.squeeze(-1).numpy(), str(format.scale))
        learned = format.element.name.startswith("kmeans")
        return from_codes(format, plain, stored, None, {"codebook": book.float().numpy()} if learned else {})

    def _scales(self, blocks: Tensor, format: Format) -> Tensor:
        """(rows, groups, 1), as they are stored; with a gradient where they are learned."""
        if self.rule in ("lsq", "seq"):
            positive = levels(format, self.rule).high
            factor = (blocks.numel() / self.first.numel() * positive) ** -0.5
            return as_stored(Slowed.apply(self.scale, factor) * self.first, format)  # type: ignore[no-untyped-call]
        if self.rule == "kmeans":
            return as_stored(self.first, format)
        with torch.no_grad():
            return as_stored(chosen(blocks, format, self.rule), format)
