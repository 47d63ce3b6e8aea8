"""Which kind of file is it? Decided by content, not by name."""

from __future__ import annotations

from pathlib import Path

from scrimp.errors import Refused, ScrimpError, UsageError
from scrimp.sources.mapped import check_regular
from scrimp.sources.source import Kind, Source

GGUF_MAGIC = b"GGUF"
LLAMA2C_MAGIC = (0x616B3432).to_bytes(4, "little")
#: The file that makes a directory a scrimp directory.
SCRIMP_JSON = "scrimp.json"


def open_source(path: Path, *, tokenizer: Path | None = None) -> Source:
    """Open whatever lies at ``path``, decided by content and not by name.

    ``tokenizer`` is the ``tok*.bin`` of a llama2.c checkpoint, the only kind that does not bring its own.
    """
    if not path.exists():
        raise ScrimpError(f"{path} does not exist.", hint="give a file, a directory or a name that `scrimp pull` lists")
    kind = _kind(path)
    if kind == "llama2c":
        from scrimp.sources.llama2c import open_llama2c

        return open_llama2c(path, tokenizer)
    if tokenizer is not None:
        raise UsageError(f"{path} brings its own tokenizer.", hint="leave out --tokenizer; only llama2.c files need it")
    if kind == "scrimp":
        # The one upward import: a compressed model is a source like any other to whoever opens it.
        from scrimp.store.open import open_store

        return open_store(path)
    if kind == "gguf":
        from scrimp.sources.gguf import open_gguf

        return open_gguf(path)
    from scrimp.sources.huggingface import open_huggingface

    return open_huggingface(path)


def _kind(path: Path) -> Kind:
    if path.is_dir():
        if (path / SCRIMP_JSON).is_file():
            return "scrimp"
        if (path / "config.json").is_file():
            return "huggingface"
        raise Refused(f"{path} holds no config.json and no {SCRIMP_JSON}.", hint=_directory_hint(path))
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(32)
    if head.startswith(GGUF_MAGIC):
        return "gguf"
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise Refused(f"{path} is a PyTorch pickle, which can run code when it is read.",
                      hint="convert it to safetensors where you trust it")  # fmt: skip
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        raise Refused(
            f"{path} is a single safetensors file.", hint=f"give the directory with its config: {path.parent}"
        )
    if head.startswith(LLAMA2C_MAGIC) or path.suffix == ".bin":
        return "llama2c"
    raise Refused(f"{path} is no model that scrimp knows.",
                  hint="known: a scrimp directory, a Hugging Face directory, a .gguf, a llama2.c .bin")  # fmt: skip


def _directory_hint(path: Path) -> str:
    inside = sorted(path.glob("*.gguf"))
    return (
        f"there is a GGUF in it: {inside[0]}" if inside else "a model directory has config.json and .safetensors files"
    )
