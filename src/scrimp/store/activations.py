"""Fixed ranges of activations, as ``config.json`` has them: ``quantization_config.activations``.

``{"rule": "mse", "scales": {"model.layers.0.self_attn.q_proj.weight": 0.0123, …}}``: for every matrix that multiplies
the float32 scale of its inputs, whose codes are −127 … 127. Matrices that read the same buffer have the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scrimp import models
from scrimp.errors import Refused

_HINT = "the directory is damaged or hostile; compress the model again"


def document(rule: str, scales: Mapping[str, float]) -> dict[str, Any]:
    return {"rule": rule, "scales": dict(scales)}


def read(path: Path, declared: object, config: Mapping[str, Any]) -> dict[str, float]:
    """Matrix → scale, empty where nothing is declared. Refused unless every product has one positive float32."""
    if declared is None:
        return {}
    scales = declared.get("scales") if isinstance(declared, dict) else None
    if not isinstance(scales, dict):
        raise Refused(f"{path}: the activations of config.json have no scales.", hint=_HINT)
    _, program = models.build(config)
    products = [op.weights for op in program.ops if op.kind == "linear"]
    wanted = {name for weights in products for name in weights}
    for name in sorted(wanted ^ scales.keys()):
        what = "no matrix that multiplies" if name in scales else "without a scale of its inputs"
        raise Refused(f"{path}: {name[:80]} is {what}.", hint=_HINT)
    limits = np.finfo(np.float32)
    least, most = float(limits.tiny), float(limits.max) / 127
    for name, scale in scales.items():
        if type(scale) is not float or not least <= scale <= most or float(np.float32(scale)) != scale:
            raise Refused(f"{path}: {str(scale)[:40]} is no scale of the inputs of {name[:80]}.", hint=_HINT)
    for weights in products:
        if len({scales[name] for name in weights}) > 1:
            raise Refused(f"{path}: {weights[0]} and others read the same numbers with different scales.", hint=_HINT)
    return scales
