"""The JSON files of a store: ``config.json``, which runs it, and ``scrimp.json``, which says where it came from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scrimp
from scrimp.sources.receipt import sha256_of
from scrimp.sources.source import Source
from scrimp.store.declared import QUANT_METHOD, RANS, VERSION

if TYPE_CHECKING:
    from scrimp.quantize.plan import Plan

#: Sources up to this size are hashed whole for the record; of larger ones names, sizes and times must do.
HASH_BYTES = 10**9


def config_json(
    source: Source, plan: Plan, activations: Mapping[str, Any] | None = None, *, packed: bool = False
) -> str:
    """The source's config, the Format and shape of every matrix, side-cars included, and fixed ranges of activations
    (activations.py)."""
    tensors = {
        name: {"format": car.format.name, "shape": car.shape}
        for name, car in plan.stored.items()
        if car.format is not None
    }
    quantization = {"quant_method": QUANT_METHOD, "version": VERSION, **_coding(packed), "tensors": tensors}
    if activations is not None:
        quantization["activations"] = activations
    return to_text({**source.config, "quantization_config": quantization})


def scrimp_json(
    source: Source,
    plan: Plan,
    hashes: Mapping[str, str] | None,
    checksums: Mapping[str, str],
    notes: Sequence[str],
    report: Mapping[str, Any],
    *,
    packed: bool = False,
) -> str:
    """Provenance with the ``hashes`` of the source's files, plan, checksums of every part, the measured report."""
    document = {
        "scrimp": scrimp.__version__,
        "version": VERSION,
        **_coding(packed),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "name": source.path.name,
            "kind": source.kind,
            "file_bytes": source.file_bytes,
            "sha256": hashes,
        },
        "parameters": plan.parameters,
        "plan": {name: str(choice) for name, choice in plan.choices.items()},
        "notes": list(notes),
        "checksums": dict(checksums),
        "report": dict(report),
    }
    return to_text(document)


def with_report(scrimp_json: str, report: Mapping[str, Any]) -> str:
    """The same document with another report."""
    return to_text({**json.loads(scrimp_json), "report": dict(report)})


def fingerprint(source: Source, plan: Plan, calibration: str = "", *, packed: bool = False) -> str:
    """One line that changes when the result would: source's files, plan, identity of the calibration, this version."""
    files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns, _head(path)] for path in _files(source)]
    job = {
        "source": [str(source.path.resolve()), source.kind, files],
        "plan": {name: str(choice) for name, choice in plan.choices.items()},
        "shapes": {name: list(car.shape) for name, car in plan.stored.items()},
        "scrimp": [scrimp.__version__, VERSION],
        "calibration": calibration,
        **_coding(packed),
    }
    return hashlib.sha256(json.dumps(job).encode()).hexdigest()


def source_hashes(source: Source) -> dict[str, str] | None:
    """The SHA-256 of every file of the source, where that is quick."""
    return {path.name: sha256_of(path) for path in _files(source)} if source.file_bytes <= HASH_BYTES else None


def _coding(packed: bool) -> dict[str, str]:
    return {"coding": RANS} if packed else {}


def to_text(document: dict[str, Any]) -> str:
    """JSON as the files of a store have it."""
    return json.dumps(_finite(document), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: an error that is unknown becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(1 << 16)).hexdigest()


def _files(source: Source) -> list[Path]:
    """The source's files, but not what other programs keep beside them."""
    if source.path.is_file():
        return [source.path]
    return sorted(p for p in source.path.iterdir() if p.is_file() and not p.name.startswith("."))
