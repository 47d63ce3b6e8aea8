"""Exact products of stored weights and int8 activations, and how far float32 may be from them.

The exact result is computed in float64 from the stored codes and from int8 activations quantized here, in NumPy, by the
rule of ``core/kernels/kernels.h``: nothing of the kernels is used to check them.
"""

import numpy as np

from scrimp.formats.codebooks import in_steps

UNIT = 2.0**-24


def gamma(n):
    return n * UNIT / (1 - n * UNIT)


def quantize(x, block):
    """int8 codes (T, K) and the float32 scale of every block (T, blocks)."""
    tokens, cols = x.shape
    padded = np.pad(x, ((0, 0), (0, -cols % block))).reshape(tokens, -1, block)
    scales = (np.abs(padded).max(axis=2) / np.float32(127)).astype(np.float32)
    safe = np.where(scales > 0, scales, np.float32(1))
    return np.rint(padded / safe[:, :, None]).astype(np.int64).reshape(tokens, -1)[:, :cols], scales


def exact_and_bound(tensor, x, block):
    """The product of stored weights and quantized activations in float64, and how far float32 may be from it."""
    fmt, (rows, cols) = tensor.format, tensor.shape
    block = min(block, cols)
    q, sx = quantize(x, block)
    group = fmt.group(cols)
    scales = tensor.row_scales().astype(np.float64)
    mins = tensor.row_mins().astype(np.float64) if tensor.mins is not None else None
    codes = tensor.codes().astype(np.int64)
    exact, size = np.zeros((x.shape[0], rows)), np.zeros((x.shape[0], rows))
    pieces = -(-cols // 32)  # kernels may cut a long sum anywhere, but never below 32 inputs
    table = None if tensor.table() is None else in_steps(tensor.table())
    for at in (slice(32 * i, min(32 * i + 32, cols)) for i in range(pieces)):
        steps = codes[:, at] if mins is not None else fmt.element.step * codes[:, at] - fmt.element.zero
        if table is not None:
            steps = (np.float64(table.factor) * table.levels)[codes[:, at]]
        scale = sx[:, at.start // block, None].astype(np.float64)
        terms = [(q[:, at] @ steps.T) * scale * scales[None, :, at.start // group]]
        if mins is not None:
            terms.append(q[:, at].sum(axis=1, keepdims=True) * scale * mins[None, :, at.start // group])
        for term in terms:
            exact += term
            size += np.abs(term)
    # one rounding to float, two products and the additions: at most 2 terms for every piece; a table's factor
    return exact, gamma(2 * pieces + 4 + (table is not None)) * size


def to_bf16(x):
    """The nearest numbers of 8 significant bits, ties to even; of finite float32."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)


def exact_and_bound_in_bf16(tensor, x):
    """The product with activations in bf16, and the bound of core/kernels/avx512/linear_bf16.cpp."""
    weights, rounded, cols = tensor.dequantize().astype(np.float64), to_bf16(x).astype(np.float64), x.shape[1]
    size = np.abs(rounded) @ np.abs(weights).T
    sizes = np.abs(rounded).sum(axis=1)[:, None] + np.abs(weights).sum(axis=1)[None, :] + 2 * cols
    return rounded @ weights.T, gamma(cols + -(-cols // 640)) * size + 2.0**-126 * sizes


def bound_of_levels(tensor, x, block):
    """What levels in 8 bits may change of a product: each one's own error times every activation it meets."""
    cols, table = tensor.shape[1], tensor.table()
    q, sx = quantize(x, block)
    steps = in_steps(table)
    error = np.abs(table.astype(np.float64) - np.float64(steps.factor) * steps.levels)[tensor.codes()]
    scales = np.repeat(tensor.row_scales().astype(np.float64), tensor.format.group(cols), axis=1)[:, :cols]
    activations = np.repeat(sx.astype(np.float64), block, axis=1)[:, :cols] * np.abs(q)
    return activations @ (np.abs(scales) * error).T
