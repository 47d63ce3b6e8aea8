"""Is a store what was written? Every part against its checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scrimp.errors import Refused
from scrimp.sources.json_object import read_json
from scrimp.sources.open import SCRIMP_JSON
from scrimp.sources.safetensors_file import SafetensorsFile
from scrimp.store.layout import MODEL_FILE, PAD_PREFIX
from scrimp.store.open import open_store


def verify(path: Path) -> int:
    """Open a store and compare every part with the checksum in ``scrimp.json``; returns how many parts there are.

    Refused with the name of the first part that differs. Checksums find damage, not malice: whoever can change a part
    can change its checksum.
    """
    open_store(path).close()
    expected = read_json(path / SCRIMP_JSON).get("checksums")
    if not isinstance(expected, dict):
        raise Refused(f"{path / SCRIMP_JSON} has no checksums.", hint="compress the model again")
    file = SafetensorsFile(path / MODEL_FILE)
    try:
        parts = [name for name in file.tensors if not name.startswith(PAD_PREFIX)]
        for name in parts:
            if hashlib.sha256(file.bytes_of(name).data).hexdigest() != expected.get(name):
                raise Refused(
                    f"{path / MODEL_FILE}: {name} is not what was written.",
                    hint="the disk or a copy damaged it; compress the model again",
                )
            file.forget(name)
    finally:
        file.close()
    return len(parts)
