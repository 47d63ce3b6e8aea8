"""MODEL of the command line, as a path."""

from __future__ import annotations

from pathlib import Path

from scrimp.errors import ScrimpError, UsageError, nearest
from scrimp.progress import SILENT, Progress


def locate(model: str, *, progress: Progress = SILENT) -> Path:
    """MODEL of the command line → a path: an existing path, else a catalogue name or hub id, pulled when needed."""
    if not model:
        raise UsageError("The name of the model is empty.", hint="give a path, a name or a hub id")
    path = _expanded(model)
    if path is not None and path.exists():
        return path
    from scrimp.sources.catalogue import catalogue
    from scrimp.sources.pull import HUB_ID, pull

    known = catalogue()
    if model in known or (HUB_ID.fullmatch(model) and path is not None and not _meant_as_path(path)):
        return pull(model, progress=progress).path
    hint = nearest(model, list(known)) or f"give a path, a hub id (owner/name), or one of: {', '.join(known)}"
    shown = model if len(model) <= 200 else f"{model[:200]}…"
    raise ScrimpError(f"There is no '{shown}' here, and no model of that name.", hint=hint)


def _expanded(model: str) -> Path | None:
    """MODEL as a path; None where it can be none, being too long or the home of nobody."""
    try:
        path = Path(model).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def _meant_as_path(path: Path) -> bool:
    """``out/typo`` where ``out`` is a directory here is a mistyped path: not worth asking a network about."""
    return path.suffix in (".gguf", ".bin", ".safetensors") or path.parent.is_dir()
