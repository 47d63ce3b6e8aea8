"""What a key/value cache makes of numbers, in NumPy: by the rule of core/kernels/kernels.h, without its kernels."""

import numpy as np

KINDS = ("f16", "f32", "int8", "int4")
LIMITS = {"int8": 127, "int4": 7}
BLOCK = 32


def scales_and_codes(x, kv, head_dim):
    """float16 ``scale = max|x| / limit`` of each 32 numbers of a head, and codes ``rint(x / scale)``: both like x."""
    limit = np.float32(LIMITS[kv])
    heads = x.reshape(*x.shape[:-1], -1, head_dim)
    padded = np.pad(heads, [*[(0, 0)] * (heads.ndim - 1), (0, -head_dim % BLOCK)])
    blocks = padded.reshape(*heads.shape[:-1], -1, BLOCK)
    with np.errstate(over="ignore"):
        scales = (np.abs(blocks).max(axis=-1, keepdims=True) / limit).astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where((scales > 0) & np.isfinite(scales), np.clip(np.rint(blocks / scales), -limit, limit), 0)
    return tuple(
        np.broadcast_to(y, blocks.shape).reshape(padded.shape)[..., :head_dim].reshape(x.shape).astype(np.float32)
        for y in (scales, codes)
    )


def cached(x, kv, head_dim):
    """x ``(T, heads * head_dim)`` as the cache gives it back; a float16 scale times a code of 8 bits is exact."""
    if kv in ("f16", "f32"):
        return x.astype(np.float16 if kv == "f16" else np.float32).astype(np.float32)
    scales, codes = scales_and_codes(x, kv, head_dim)
    return scales * codes
