"""How the inputs of products become int8: blocks with a scale of their own, or one scale fixed beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from scrimp.errors import UsageError
from scrimp.program import Program
from scrimp.tensors import QTensor

#: Inputs that share a scale; "token" has one for all inputs of a token.
ActivationBlock = int | Literal["token"]

#: Architecture §5: smaller is more faithful, 32 costs nothing in decode.
ACTIVATION_BLOCK = 32
#: More inputs than any matrix has.
_WHOLE = 2**30


def block_inputs(block: ActivationBlock, program: Program, matrices: Mapping[str, QTensor]) -> int:
    """The block as a number. UsageError unless it and the group of every weight that meets it nest: a product sums what
    both have in common before it scales."""
    if block == "token":
        return _WHOLE
    if not isinstance(block, int) or not 32 <= block <= _WHOLE or block % 32:
        raise UsageError(f"{block!r} inputs are no block of activations.", hint="a multiple of 32, or 'token'")
    for name in {name for op in program.ops if op.kind == "linear" for name in op.weights}:
        format, cols = matrices[name].format, matrices[name].shape[1]
        group = format.group(cols)
        if format.element.kind == "float" or block >= cols or group >= cols:
            continue
        if block % group and group % block:
            raise UsageError(
                f"Blocks of {block} activations do not nest with the groups of {name}, which hold {group} weights.",
                hint=f"a multiple of {group}, or 'token'",
            )
    return block


def with_input_scales(program: Program, scales: Mapping[str, float]) -> Program:
    """The Program with a fixed scale at every product: of all inputs of its matrices, which ``scales`` has by name."""
    ops = [replace(op, floats=(float(scales[op.weights[0]]),)) if op.kind == "linear" else op for op in program.ops]
    return replace(program, ops=ops)
