"""Every way a GGUF header can lie is one row with the message it earns; and what is true is read as it is."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_bytes import (
    ARRAY,
    BOOL,
    CODES,
    DATA,
    F32,
    I32,
    KEYS,
    STRING,
    TENSORS,
    U8,
    U32,
    U64,
    gguf,
    key,
    string,
    tensor,
)  # fmt: skip
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scrimp.errors import Refused
from scrimp.sources.gguf_header import parse_header

HUGE = (2**31, 2**32, 2**63, 2**64 - 1)


def test_a_plain_file_is_read() -> None:
    header = parse_header(gguf(), "f")
    assert header.metadata == {"general.architecture": "llama", "n": 7}
    a, b = header.tensors.values()
    assert (a.name, a.shape, a.type.name, a.nbytes) == ("a", (2, 32), "Q8_0", 68)
    assert (b.name, b.shape, b.type.name, b.nbytes) == ("b", (4,), "F32", 16)
    assert b.offset == a.offset + 96 == len(gguf()) - 16


def test_version_2_is_read_like_version_3() -> None:
    assert parse_header(gguf(version=2), "f") == parse_header(gguf(version=3), "f")


def test_the_alignment_of_the_file_is_obeyed() -> None:
    tensors = (tensor("a", (32, 2), 8, 0), tensor("b", (4,), 0, 128))
    data = bytes(68).ljust(128, b"\0") + bytes(16)
    file = gguf((*KEYS, key("general.alignment", U32, 64)), tensors, data, alignment=64)
    assert parse_header(file, "f").tensors["b"].offset == len(file) - 16


def test_padding_behind_the_last_tensor_is_allowed() -> None:
    assert parse_header(gguf(data=DATA + bytes(16)), "f").tensors["b"].nbytes == 16


ATTACKS: dict[str, tuple[bytes, str]] = {
    "another magic": (gguf(magic=b"GGML"), "this is no GGUF file"),
    "version 1": (gguf(version=1), "version 1 is not supported"),
    "version 4": (gguf(version=4), "version 4 is not supported"),
    "big-endian": (gguf(version=3 << 24), "big-endian"),
    **{f"{n} tensors": (gguf(counts=(n, 2)), f"claims {n:,} tensors; the limit is") for n in HUGE},
    **{f"{n} keys": (gguf(counts=(2, n)), f"claims {n:,} metadata keys; the limit is") for n in HUGE},
    "one tensor too many claimed": (gguf(counts=(3, 2)), "a tensor's name is ''"),
    "one key too many claimed": (gguf(counts=(2, 3)), "a tensor's name claims"),
    "a key twice": (gguf((*KEYS, KEYS[1])), "the metadata key 'n' appears twice"),
    "a key longer than allowed": (gguf((key("k" * 257, U32, 1),)), "a metadata key claims 257 bytes; the limit is 256"),
    "a key without a name": (gguf((key("", U32, 1),)), "a metadata key is ''"),
    "a key that steers the terminal": (gguf((key("\x1b[2J", U32, 1),)), r"a metadata key is '\x1b[2J'"),
    "a key that is not UTF-8": (gguf((key(b"\xff", U32, 1),)), "a metadata key is not UTF-8"),
    **{
        f"a string of {n}": (
            gguf((string("s") + struct.pack("<IQ", STRING, n),)),
            f"'s' claims {n:,} bytes; the limit is",
        )
        for n in HUGE
    },
    "a string that is not UTF-8": (gguf((key("s", STRING, b"\xff"),)), "'s' is not UTF-8"),
    "an unknown value type": (gguf((string("s") + struct.pack("<II", 13, 0),)), "unknown value type 13"),
    "a boolean of 2": (gguf((string("s") + struct.pack("<IB", BOOL, 2),)), "'s' is a boolean with the value 2"),
    **{
        f"an array of {n} {what}": (
            gguf((string("s") + struct.pack("<IIQ", ARRAY, kind, n),)),
            f"'s' claims {n:,} items; the limit is",
        )
        for n in HUGE
        for what, kind in (("bytes", U8), ("floats", F32), ("strings", STRING))
    },
    "an array longer than the file": (
        gguf((string("s") + struct.pack("<IIQ", ARRAY, U64, 10**6),)),
        "needs 8,000,000 bytes",
    ),
    "strings longer than the file": (
        gguf((string("s") + struct.pack("<IIQ", ARRAY, STRING, 10**6),)),
        "needs 8,000,000 bytes",
    ),
    "a string in an array that goes beyond the end": (
        gguf((string("s") + struct.pack("<IIQQ", ARRAY, STRING, 1, 2**64 - 1),)),
        "string 0 of 's' goes beyond the end of the file",
    ),
    "a string in an array that is not UTF-8": (
        gguf((key("s", ARRAY, (STRING, ["fine", b"\xff"])),)),
        "string 1 of 's' is not UTF-8",
    ),
    "an array of arrays": (gguf((key("s", ARRAY, (ARRAY, [(U8, [1])])),)), "array of arrays"),
    "an array of an unknown type": (gguf((string("s") + struct.pack("<IIQ", ARRAY, 99, 0),)), "unknown value type 99"),
    **{
        f"an alignment of {n}": (gguf((key("general.alignment", U32, n),)), f"general.alignment is {n:,}")
        for n in (0, 3, 48, 2**17, 2**31)
    },
    "a signed alignment": (gguf((key("general.alignment", I32, 32),)), "must be uint32"),
    "an alignment in words": (gguf((key("general.alignment", STRING, "32"),)), "must be uint32"),
    "an alignment in an array": (gguf((key("general.alignment", ARRAY, (U32, [32])),)), "must be uint32"),
    "a tensor name too long": (gguf(tensors=(tensor("t" * 257, (4,), 0, 0),)), "claims 257 bytes; the limit is 256"),
    "a tensor name that is not UTF-8": (gguf(tensors=(tensor(b"\xff", (4,), 0, 0),)), "a tensor's name is not UTF-8"),
    "a tensor name that steers the terminal": (gguf(tensors=(tensor("\x1b[2J", (4,), 0, 0),)), r"'\x1b[2J'"),
    "a tensor twice": (
        gguf(tensors=(tensor("a", (4,), 0, 0), tensor("a", (4,), 0, 32)), data=bytes(48)),
        "the tensor name 'a' appears twice",
    ),
    "rank 0": (gguf(tensors=(tensor("a", (), 0, 0),), data=bytes(4)), "a has 0 dimensions"),
    "rank 5": (gguf(tensors=(tensor("a", (1, 1, 1, 1, 1), 0, 0),), data=bytes(4)), "a has 5 dimensions"),
    "rank 2^32 - 1": (gguf(tensors=(tensor("a", (4,), 0, 0, rank=2**32 - 1),)), "a has 4,294,967,295 dimensions"),
    "a side of 0": (gguf(tensors=(tensor("a", (4, 0), 0, 0),)), "a has the impossible shape 0 × 4"),
    **{f"a side of {n}": (gguf(tensors=(tensor("a", (n,), 0, 0),)), "") for n in HUGE},
    "sides that overflow 64 bits to 0": (gguf(tensors=(tensor("a", (2**32, 2**32), 0, 0),)), "impossible shape"),
    "sides that overflow 64 bits to 4": (gguf(tensors=(tensor("a", (2**62 + 1, 4), 0, 0),)), "impossible shape"),
    "bytes that overflow 64 bits": (gguf(tensors=(tensor("a", (2**62,), 0, 0),)), "but the file at byte"),
    "rows that blocks do not divide": (
        gguf(tensors=(tensor("a", (33, 2), 8, 0),)),
        "rows of 33, which blocks of 32 (Q8_0)",
    ),
    "an unknown tensor type": (gguf(tensors=(tensor("a", (32, 2), 4, 0),)), "a has the unknown tensor type 4"),
    **{
        f"an offset of {n}": (gguf(tensors=(tensor("a", (4,), 0, n),)), f"it lies at byte {n:,} of the data")
        for n in HUGE
    },
    "an unaligned offset": (gguf(tensors=(TENSORS[0], tensor("b", (4,), 0, 72))), "b overlaps a"),
    "a tensor on another": (gguf(tensors=(TENSORS[0], tensor("b", (4,), 0, 64))), "b overlaps a"),
    "a tensor in another": (gguf(tensors=(TENSORS[0], tensor("b", (4,), 0, 0))), "overlaps"),
    "a hole": (gguf(tensors=(TENSORS[0], tensor("b", (4,), 0, 128)), data=DATA + bytes(32)), "b leaves a hole after a"),
    "a hole before the first": (gguf(tensors=(tensor("b", (4,), 0, 32),)), "b leaves a hole after the header"),
    "data that ends early": (gguf(data=DATA[:-1]), "b ends at byte"),
    "data that goes on": (gguf(data=DATA + bytes(17)), "1 bytes follow the last tensor"),
    "nothing but data": (gguf(tensors=()), "bytes follow the last tensor"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_refuses(attack: str) -> None:
    file, message = ATTACKS[attack]
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(Refused) as refused:
        parse_header(file, "evil.gguf")
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert message in refused.value.message
    assert refused.value.message.startswith("evil.gguf: ")
    # refused before anything of the claimed size is made or walked
    assert seconds < 1
    assert peak < 200_000


def test_a_file_cut_at_any_byte_is_refused() -> None:
    whole = gguf()
    for length in range(len(whole)):
        with pytest.raises(Refused):
            parse_header(whole[:length], "f")


@settings(max_examples=500, deadline=None)
@given(at=st.integers(0, len(gguf()) - len(DATA) - 1), byte=st.integers(0, 255), more=st.binary(max_size=9))
@example(at=0, byte=0, more=b"")
def test_a_changed_byte_is_read_or_refused_and_nothing_else_happens(at: int, byte: int, more: bytes) -> None:
    file = bytearray(gguf())
    file[at : at + 1 + len(more)] = bytes([byte]) + more
    try:
        header = parse_header(bytes(file), "f")
    except Refused:
        return
    for found in header.tensors.values():
        assert 0 <= found.offset <= found.offset + found.nbytes <= len(file)


NUMBERS = {
    "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=False),
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEY_NAMES = st.text("abcxyz._", min_size=1, max_size=12).map(lambda name: f"k.{name}")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_the_gguf_package_writes_is_read_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    gguf_package = pytest.importorskip("gguf")
    path: Path = tmp_path_factory.mktemp("gguf") / "f.gguf"
    writer = gguf_package.GGUFWriter(path, "llama")
    wanted: dict[str, Any] = {"general.architecture": "llama"}
    for name in data.draw(st.lists(KEY_NAMES, unique=True, max_size=6)):
        kind = data.draw(st.sampled_from(["bool", "string", "strings", "ints", *NUMBERS]))
        if kind == "strings":
            wanted[name] = data.draw(st.lists(TEXTS, min_size=1, max_size=5))
            writer.add_array(name, wanted[name])
        elif kind == "ints":
            wanted[name] = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5))
            writer.add_array(name, wanted[name])
        elif kind == "string":
            wanted[name] = data.draw(TEXTS.filter(bool))
            writer.add_string(name, wanted[name])
        else:
            wanted[name] = data.draw(st.booleans() if kind == "bool" else NUMBERS[kind])
            getattr(writer, f"add_{kind}")(name, wanted[name])
    if data.draw(st.booleans()):
        wanted["general.alignment"] = data.draw(st.sampled_from([8, 64, 4096]))
        writer.add_custom_alignment(wanted["general.alignment"])
    sides = st.lists(st.integers(1, 5), min_size=1, max_size=4)
    arrays = {
        name: np.random.default_rng(len(name)).random(data.draw(sides), np.float32)
        for name in data.draw(st.lists(KEY_NAMES, unique=True, min_size=1, max_size=5))
    }
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    raw = path.read_bytes()
    header = parse_header(raw, "f")
    assert header.metadata == wanted
    assert list(header.tensors) == list(arrays)
    for name, array in arrays.items():
        found = header.tensors[name]
        assert found.shape == array.shape
        assert raw[found.offset : found.offset + found.nbytes] == array.tobytes()


def test_every_scalar_type_is_read() -> None:
    values = {kind: True if kind == BOOL else 1.5 if code in "fd" else 3 for kind, code in CODES.items()}
    keys = [key(f"k{kind}", kind, value) for kind, value in values.items()]
    arrays = [key(f"a{kind}", ARRAY, (kind, [value] * 3)) for kind, value in values.items()]
    metadata = parse_header(gguf([*keys, *arrays]), "f").metadata
    for kind, value in values.items():
        assert metadata[f"k{kind}"] == value
        assert metadata[f"a{kind}"] == [value] * 3
        assert type(metadata[f"k{kind}"]) is type(value)


def test_a_vocabulary_of_100_000_strings_is_read_within_a_second() -> None:
    words = [f"token number {i}" for i in range(100_000)]
    file = gguf((key("tokens", ARRAY, (STRING, words)),))
    began = time.perf_counter()
    header = parse_header(file, "f")
    seconds = time.perf_counter() - began
    assert header.metadata["tokens"] == words
    assert seconds < 1  # some 0.03 s on the development machine; the gguf package takes 50 times as long
