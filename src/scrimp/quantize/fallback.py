"""Never worse than rounding to nearest: rows where a search found nothing better stay as ``rtn`` has them."""

from __future__ import annotations

import numpy as np

from scrimp.formats.code import F64
from scrimp.quantize.grid import Levels, Parts, parts_of
from scrimp.quantize.objective import row_errors
from scrimp.quantize.quantized import Quantized
from scrimp.tensors import F32, QTensor


def or_plain(plain: QTensor, found: Parts, weight: F32, moments: F64, levels: Levels) -> Quantized:
    """The rows of ``found`` that err less under H than those of ``plain``, both as decoded; a note counts the others.

    Of one scale per tensor all or none.
    """
    new = levels.tensor(found.codes, found.scales, found.mins)
    before, after = (row_errors(weight - q.dequantize().astype(np.float64), moments) for q in (plain, new))
    if plain.format.block == "tensor":
        if after.sum() < before.sum():
            return Quantized(new)
        return Quantized(plain, ("nothing better than rtn was found, so it is rounded to nearest",))
    better = after < before
    worse = int((after > before).sum())
    notes = (f"{worse:,} of {len(before):,} rows stay as rtn has them, which errs less",) if worse else ()
    kept = found.where(better, parts_of(plain, levels))
    return Quantized(levels.tensor(kept.codes, kept.scales, kept.mins), notes)
