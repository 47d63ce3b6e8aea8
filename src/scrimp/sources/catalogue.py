"""The models that have names, and where pulled models lie."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wheel:
    """A model file inside a PyPI wheel."""

    name: str
    about: str
    licence: str
    package: str
    version: str
    member: str  #: path of the model inside the wheel
    wheel_bytes: int
    bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        return self.member.rsplit("/", 1)[-1]

    @property
    def origin(self) -> str:
        return f"PyPI {self.package} {self.version}"


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository of the hub; ``revision`` is a commit, or "main" for one that a user names himself."""

    name: str
    repo: str
    revision: str = "main"
    about: str = ""
    licence: str = "see its page"

    @property
    def origin(self) -> str:
        return f"hub {self.repo}"


Entry = Wheel | HubModel


def catalogue() -> dict[str, Entry]:
    """name → entry, in the order of ``catalogue.toml``."""
    text = resources.files("scrimp.sources").joinpath("catalogue.toml").read_text(encoding="utf-8")
    return {
        name: Wheel(name=name, **fields) if "package" in fields else HubModel(name=name, **fields)
        for name, fields in tomllib.loads(text).items()
    }


def cache_directory() -> Path:
    """``$SCRIMP_HOME``, else ``$XDG_CACHE_HOME/scrimp``, else ``~/.cache/scrimp``."""
    if home := os.environ.get("SCRIMP_HOME"):
        return Path(home).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scrimp"
