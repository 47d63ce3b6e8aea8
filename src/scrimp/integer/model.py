"""A network of pictures, opened: its Net, its integers, and the engine that runs them."""

from __future__ import annotations

from types import TracebackType

from scrimp.integer.at_rest import read
from scrimp.integer.engine import IntegerEngine
from scrimp.integer.lower import lower
from scrimp.integer.program import I32
from scrimp.integer.reference import U8
from scrimp.sources.source import Source


class PictureModel:
    """A network of pictures that runs. Use :func:`scrimp.open`; close it (or use ``with``) to release the file."""

    def __init__(self, source: Source, *, threads: int | None = None, isa: str | None = None) -> None:
        """Refused where the source is a network of text, or has weights that do not lower to integers."""
        self.source = source
        self.net, tensors = read(source)
        self.engine = IntegerEngine(lower(self.net, tensors), threads=threads, isa=isa)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where they have none."""
        return self.net.labels

    @property
    def classes(self) -> int:
        return self.engine.program.classes

    def logits(self, pictures: U8) -> I32:
        """Pictures ``(n, height, width, channels)`` in bytes → logits ``(n, classes)``, integers in one unit.

        They are those that an exported chip makes, to the last bit.
        """
        return self.engine.logits(pictures)

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> PictureModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
