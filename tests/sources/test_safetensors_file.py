"""Every way a safetensors header can lie is one row with the message it earns; the safetensors package judges too."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrimp.errors import Refused
from scrimp.sources.safetensors_file import parse_header

TENSORS: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}
PAYLOAD = bytes(range(32))


def file(header: Any = TENSORS, payload: bytes = PAYLOAD, *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + payload


def edited(name: str, **fields: Any) -> dict[str, Any]:
    return {**TENSORS, name: {**TENSORS[name], **fields}}


def test_a_plain_file_is_read() -> None:
    tensors = parse_header(file({"__metadata__": {"format": "pt"}, **TENSORS}), "f")
    start = len(file({"__metadata__": {"format": "pt"}, **TENSORS})) - 32
    assert [(t.name, t.dtype, t.shape, t.offset, t.nbytes) for t in tensors.values()] == [
        ("a", "F32", (2, 3), start, 24),
        ("b", "F16", (4,), start + 24, 8),
    ]


def test_spaces_behind_the_header_are_allowed() -> None:
    assert len(parse_header(file(json.dumps(TENSORS).encode() + b"   "), "f")) == 2


ATTACKS: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "the file has 0 bytes"),
    "four bytes": (b"\0\0\0\0", "the file has 4 bytes; a header needs at least 10"),
    **{
        f"a header of {n} bytes": (file(length=n), f"the header claims {n:,} bytes; the limit is 100,000,000")
        for n in (10**8 + 1, 2**31, 2**32, 2**63, 2**64 - 1)
    },
    "a header longer than the file": (file(length=10**6), "the header claims 1,000,000 bytes; the file has"),
    "a header of nothing": (file(length=0), "does not begin with '{'"),
    "a header that begins with a space": (file(b" {}", b""), "does not begin with '{'"),
    "a header that is no JSON": (file(b"{'a': 1}", b""), "is not valid JSON"),
    "a header cut short": (file(length=20), "is not valid JSON"),
    "a header that is not UTF-8": (file(b'{"\xff": 1}', b""), "is not valid JSON"),
    "a header nested deeply": (file(b'{"a":' + b"[" * 10**6, b""), "is nested too deeply"),
    "a number of 10,000 digits": (file(b'{"a": ' + b"9" * 10**4 + b"}", b""), "is not valid JSON"),
    "a tensor twice": (file(b'{"a": {}, "a": {}}', b""), "the key 'a' appears twice"),
    "a shape twice": (file(b'{"a": {"shape": [1], "shape": [2]}}', b""), "the key 'shape' appears twice"),
    "a tensor that is a list": (file({"a": []}, b""), "a must have exactly dtype, shape and data_offsets"),
    "a tensor that is null": (file({"a": None}, b""), "a must have exactly"),
    "a tensor without a shape": (file({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"0"), "a must have exactly"),
    "a tensor with more": (file(edited("a", more=1)), "a must have exactly"),
    "an unknown dtype": (file(edited("a", dtype="F33")), "unknown dtype 'F33'"),
    "a dtype that is a list": (file(edited("a", dtype=["F32"])), "unknown dtype"),
    "a shape that is a number": (file(edited("a", shape=6)), "the shape of a is no list"),
    "a negative side": (file(edited("a", shape=[-2, -3])), "the shape of a is no list"),
    "a side that is a float": (file(edited("a", shape=[2.0, 3])), "the shape of a is no list"),
    "a side that is true": (file(edited("a", shape=[True, 6])), "the shape of a is no list"),
    "a side that is a string": (file(edited("a", shape=["2", 3])), "the shape of a is no list"),
    "nine sides": (file(edited("a", shape=[1] * 7 + [2, 3])), "no list of up to 8 natural numbers"),
    **{f"a side of {n}": (file(edited("a", shape=[n])), "") for n in (2**31, 2**32, 2**63, 2**64 - 1)},
    "sides that overflow 64 bits to 0": (file(edited("a", shape=[2**32, 2**32])), "impossible shape"),
    "sides that overflow 64 bits to 6": (file(edited("a", shape=[2**62, 4])), "impossible shape"),
    "offsets in words": (file(edited("a", data_offsets="0:24")), "the data_offsets of a are no [begin, end]"),
    "three offsets": (file(edited("a", data_offsets=[0, 12, 24])), "the data_offsets of a are no [begin, end]"),
    "offsets backwards": (file(edited("a", data_offsets=[24, 0])), "the data_offsets of a are no [begin, end]"),
    "a negative offset": (file(edited("a", data_offsets=[-24, 0])), "the data_offsets of a are no [begin, end]"),
    "offsets of 2^63": (file(edited("a", data_offsets=[2**63, 2**63 + 24])), "the data_offsets of a are no"),
    "a span too short": (file(edited("a", data_offsets=[0, 20])), "a spans 20 bytes; F32 of its shape takes 24"),
    "a span too long": (file(edited("b", data_offsets=[24, 33])), "b spans 9 bytes; F16 of its shape takes 8"),
    "half a byte": (file({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"0"), "a spans 1 bytes; F4"),
    "a tensor on another": (file(edited("b", data_offsets=[20, 28])), "b overlaps a at byte 20"),
    "both in one place": (file(edited("b", data_offsets=[0, 8]), bytes(24)), "overlaps"),
    "a hole": (file(edited("b", data_offsets=[28, 36]), bytes(36)), "b leaves a hole after a at byte 24"),
    "a hole before the first": (file({"b": TENSORS["b"]}), "b leaves a hole after the header at byte 0"),
    "a payload too short": (file(payload=PAYLOAD[:-1]), "1 bytes are missing at the end"),
    "a payload too long": (file(payload=PAYLOAD + b"0"), "1 bytes follow the last tensor"),
    "no tensors but a payload": (file({}), "32 bytes follow the last tensor"),
    "a name of 513 characters": (
        file({"n" * 513: TENSORS["a"]}, bytes(24)),
        "name has 513 characters; the limit is 512",
    ),
    "a name that steers the terminal": (file({"\x1b[2J": TENSORS["a"]}, bytes(24)), r"'\x1b[2J'"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses(attack: str) -> None:
    raw, message = ATTACKS[attack]
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(Refused) as refused:
        parse_header(raw, "evil.safetensors")
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in refused.value.message
    assert refused.value.message.startswith("evil.safetensors: ")
    assert seconds < 1
    assert peak < 200_000 + 10 * len(raw)


def test_a_file_cut_at_any_byte_is_refused() -> None:
    whole = file()
    for length in range(len(whole)):
        with pytest.raises(Refused):
            parse_header(whole[:length], "f")


@settings(max_examples=500, deadline=None)
@given(
    at=st.integers(0, len(file()) - 33),
    more=st.sampled_from([b"0", b"9", b'"', b"{", b"[1]", b",", b"\0", b"-", b"99"]),
)
def test_what_we_accept_the_safetensors_package_accepts_too(at: int, more: bytes) -> None:
    safetensors = pytest.importorskip("safetensors")
    raw = bytearray(file())
    raw[at : at + len(more)] = more
    try:
        mine = parse_header(bytes(raw), "f")
    except Refused:
        return
    theirs = dict(safetensors.deserialize(bytes(raw)))
    assert set(mine) == set(theirs)
    for name, tensor in mine.items():
        assert tensor.shape == tuple(theirs[name]["shape"])
        assert raw[tensor.offset : tensor.offset + tensor.nbytes] == bytes(theirs[name]["data"])
