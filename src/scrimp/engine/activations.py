"""How the inputs of products become int8: blocks with a scale of their own, or one scale fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from scrimp.errors import UsageError
from scrimp.program import Program

#: Inputs that share a scale; "token" has one for all inputs of a token.
ActivationBlock = int | Literal["token"]

#: Architecture §5: smaller is more faithful, 32 costs nothing in decode.
ACTIVATION_BLOCK = 32
#: More inputs than any matrix has.
_WHOLE = 2**30


def block_inputs(block: ActivationBlock) -> int:
    """The block as a number; UsageError for one that the kernels cannot cut a row into."""
    if block == "token":
        return _WHOLE
    if not isinstance(block, int) or not 32 <= block <= _WHOLE or block % 32:
        raise UsageError(f"{block!r} inputs are no block of activations.", hint="a multiple of 32, or 'token'")
    return block


def with_input_scales(program: Program, scales: Mapping[str, float]) -> Program:
    """The Program with a fixed scale at every product: of all inputs of its matrices, which ``scales`` has by name."""
    ops = [replace(op, floats=(float(scales[op.weights[0]]),)) if op.kind == "linear" else op for op in program.ops]
    return replace(program, ops=ops)
