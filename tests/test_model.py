"""How a Model reads its tensors."""

from __future__ import annotations

import threading

from scrimp.model import _each


def test_what_threads_read_stands_between_what_is_read_at_once() -> None:
    by: dict[str, int] = {}

    def read(name: str) -> str:
        by[name] = threading.get_ident()
        return name.upper()

    found = _each(read, ["norm", "nf4", "int4", "f16"], {"norm", "int4"}.__contains__)
    assert list(found.items()) == [("norm", "NORM"), ("nf4", "NF4"), ("int4", "INT4"), ("f16", "F16")]
    assert {name for name, thread in by.items() if thread == threading.get_ident()} == {"norm", "int4"}
