"""A network of pictures at rest: written with its tensors, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import scrimp
from scrimp.errors import UsageError
from scrimp.integer.at_rest import Tensors, read
from scrimp.models import cnn
from scrimp.models.cnn import Net
from scrimp.sources.checks import check_finite
from scrimp.store.declared import QUANT_METHOD, VERSION
from scrimp.store.documents import to_text
from scrimp.store.layout import lay_out
from scrimp.store.open import open_store
from scrimp.store.partial import SCRIMP_JSON, Partial
from scrimp.tensors import QTensor


def write_net(
    out: Path,
    net: Net,
    tensors: Tensors,
    *,
    provenance: Mapping[str, Any] | None = None,
    method: str = "trained",
    notes: Sequence[str] = (),
    report: Mapping[str, Any] | None = None,
) -> None:
    """Write ``net`` as a scrimp directory that appears complete, in the place of an older one, or not at all.

    ``tensors`` are exactly those of :meth:`Net.tensors`: weights as QTensors in any Format, ``f32`` included, vectors
    as float32. ``provenance`` (recipe, seed, data …) becomes ``source`` of ``scrimp.json``, ``report`` and ``notes``
    stand there too, and ``method`` says how the weights came to their format.

    Errors: UsageError where a tensor is missing, too many or of another shape; Refused where a number is not finite.
    """
    shapes = net.tensors()
    _check(shapes, tensors)
    for name, tensor in tensors.items():
        check_finite(out, name, tensor)
    formats = {name: tensor.format for name, tensor in tensors.items() if isinstance(tensor, QTensor)}
    quantization = {
        "quant_method": QUANT_METHOD,
        "version": VERSION,
        "tensors": {name: {"format": formats[name].name, "shape": shapes[name]} for name in shapes if name in formats},
    }
    with Partial(out, lay_out(shapes, formats), "a network of pictures is written all at once", fresh=True) as partial:
        for name in shapes:
            partial.write(name, tensors[name], 0.0)
        checksums = {part: digest for done in partial.finished.values() for part, digest in done.checksums.items()}
        document = {
            "scrimp": scrimp.__version__,
            "version": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": dict(provenance or {}),
            "parameters": sum(int(np.prod(shape)) for shape in shapes.values()),
            "plan": {name: f"{format.name}@{method}" for name, format in formats.items()},
            "notes": list(notes),
            "checksums": checksums,
            "report": dict(report or {}),
        }
        texts = {
            "config.json": to_text({**cnn.to_config(net), "quantization_config": quantization}),
            SCRIMP_JSON: to_text(document),
        }
        partial.complete(texts, check=open_net)


def open_net(path: Path) -> tuple[Net, Tensors]:
    """What :func:`write_net` wrote, every tensor checked; views of the mapped file, which stays mapped with them."""
    with open_store(path) as source:
        return read(source)


def _check(shapes: Mapping[str, tuple[int, ...]], tensors: Tensors) -> None:
    if strange := sorted(shapes.keys() ^ tensors.keys()):
        what = "is missing" if strange[0] in shapes else "belongs to no operation"
        raise UsageError(f"{strange[0][:80]} {what}.", hint="a network has exactly the tensors of Net.tensors()")
    for name, shape in shapes.items():
        tensor = tensors[name]
        vector: NDArray[Any] | None = None if isinstance(tensor, QTensor) else tensor
        if tuple(tensor.shape) != shape or (vector is None) != (len(shape) == 2):
            raise UsageError(f"{name} has shape {tuple(tensor.shape)}; here it must be {shape}.",
                             hint="weights are QTensors (N, K), all else float32 vectors")  # fmt: skip
        if vector is not None and vector.dtype != np.float32:
            raise UsageError(f"{name} holds {vector.dtype}.", hint="vectors are stored as float32")
