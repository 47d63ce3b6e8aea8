"""A tensor under the coder comes back bit by bit, whatever its format; damaged, it is refused and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrimp.errors import Refused
from scrimp.formats import parse
from scrimp.formats.catalogue import ELEMENTS, NAMED
from scrimp.store import coded, sections
from scrimp.tensors import QTensor, encode_weight

PATH = Path("store")
ALL = [*ELEMENTS, *NAMED, "int4z:g32", "int6z:row@f32", "int8:tensor", "fp8_e4m3:row", "nf4:g32@bf16", "int5:g64@e8m0"]
#: What a section adds to bytes that stay as they are.
SECTION_BYTES = 11


def encoded(name: str, shape: tuple[int, int], seed: int = 0) -> QTensor:
    generator = np.random.default_rng(seed)
    weight = (generator.standard_normal(shape) * np.exp(generator.standard_normal((shape[0], 1)))).astype(np.float32)
    return encode_weight(np.abs(weight) if name == "e8m0" else weight, parse(name))


def same(one: QTensor, other: QTensor) -> bool:
    left, right = one.parts(), other.parts()
    return left.keys() == right.keys() and all(
        left[part].dtype == right[part].dtype
        and left[part].shape == right[part].shape
        and left[part].tobytes() == right[part].tobytes()
        for part in left
    )


def decoded(tensor: QTensor, data: bytes, threads: int = 1) -> QTensor:
    return coded.decode_matrix(PATH, "w", tensor.format, tensor.shape, np.frombuffer(data, np.uint8), threads)


@pytest.mark.parametrize("shape", [(70, 300), (1, 1), (16, 64), (3, 40)])
@pytest.mark.parametrize("name", ALL)
def test_every_format_comes_back_and_never_grows(name: str, shape: tuple[int, int]) -> None:
    tensor = encoded(name, shape)
    data = coded.encode(tensor)
    assert same(decoded(tensor, data), tensor)
    numbers = sum(values.itemsize for values in tensor.parts().values())
    assert len(data) <= tensor.nbytes + SECTION_BYTES * numbers


@pytest.mark.parametrize(
    "name", ["int4:g64", "int4z:g32", "int6:row", "int2:g32", "ternary", "nf4:g64", "q4_k", "mxfp4", "bf16"]
)
def test_a_size_is_predicted_within_half_a_percent_and_from_a_sample_of_rows(name: str) -> None:
    tensor = encoded(name, (1024, 512))
    written = len(coded.encode(tensor))
    assert abs(coded.predicted_bytes(tensor) - written) <= 0.005 * written
    # the rows of this matrix differ by design, so that a quarter of them is a sample of another spread
    even = encode_weight(np.random.default_rng(1).standard_normal((1024, 512)).astype(np.float32), parse(name))
    sample = even.tiles(0, 16)
    assert abs(coded.predicted_bytes(sample, rows=1024) - len(coded.encode(even))) <= 0.01 * even.nbytes


def test_threads_and_segments_change_nothing() -> None:
    tensor = encoded("int3:g64", (2100, 512))  # three segments
    one, many = coded.encode(tensor), coded.encode(tensor, threads=4)
    assert one == many
    assert same(decoded(tensor, one, threads=3), tensor)


@pytest.mark.parametrize("values", [
    np.zeros(0, np.float32), np.ones(7, np.float32), np.zeros(5000, np.float32), np.float32([np.pi]),
    np.random.default_rng(0).standard_normal(576).astype(np.float32),
], ids=["none", "ones", "zeros", "one", "normal"])  # fmt: skip
def test_vectors_come_back(values: NDArray[np.float32]) -> None:
    data = np.frombuffer(coded.encode(values), np.uint8)
    assert coded.vector_size(PATH, "v", data) == values.size
    assert coded.decode_vector(PATH, "v", data).tobytes() == values.tobytes()
    assert len(data) <= values.nbytes + 4 * SECTION_BYTES + 9


def test_numbers_that_were_rounded_to_half_their_bits_take_half_the_bytes() -> None:
    values = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    short = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert len(coded.encode(short)) < 0.5 * short.nbytes


def test_a_constant_matrix_of_any_size_does_not_become_a_bomb() -> None:
    tensor = encode_weight(np.zeros((4096, 1024), np.float32), parse("int8:row"))
    data = coded.encode(tensor)
    assert len(data) == -(-tensor.nbytes // coded.LARGEST_RATIO)
    assert same(decoded(tensor, data), tensor)
    with pytest.raises(Refused, match="too few"):
        decoded(tensor, data[:-1])
    with pytest.raises(Refused, match="too few"):
        coded.decode_matrix(PATH, "w", parse("int8:row"), (2**39, 2**39), np.frombuffer(data, np.uint8))
    with pytest.raises(Refused, match="too few"):
        coded.vector_size(PATH, "v", np.frombuffer(sections.varint(2**40) + bytes(100), np.uint8))


SAMPLES = [encoded(name, (50, 70)) for name in ("int4:g32", "int6:row", "ternary", "nf4:g64", "bf16", "q4_k")]
STREAMS = [coded.encode(tensor) for tensor in SAMPLES]


@pytest.mark.parametrize("which", range(len(SAMPLES)))
def test_every_truncation_is_refused(which: int) -> None:
    for size in range(len(STREAMS[which])):
        with pytest.raises(Refused):
            decoded(SAMPLES[which], STREAMS[which][:size])


@settings(max_examples=500, deadline=None)
@given(
    which=st.integers(0, len(SAMPLES) - 1),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_is_refused_or_decodes_to_a_tensor_of_that_shape(which: int, edits: list[tuple[int, int]]) -> None:
    data = bytearray(STREAMS[which])
    for at, byte in edits:
        data[at % len(data)] = byte
    try:
        found = decoded(SAMPLES[which], bytes(data))
    except Refused:
        return
    shapes = {part: (values.shape, values.dtype) for part, values in found.parts().items()}
    assert shapes == {part: (values.shape, values.dtype) for part, values in SAMPLES[which].parts().items()}


@settings(max_examples=300, deadline=None)
@given(which=st.integers(0, len(SAMPLES) - 1), data=st.binary(max_size=400))
def test_noise_is_refused(which: int, data: bytes) -> None:
    with pytest.raises(Refused):
        decoded(SAMPLES[which], data)


def blob(
    *, flags: int = 0, classes: int = 1, tables: int = 1, levels: int = 16, body: bytes | None = None,
    deflated: bytes | None = None, sizes: tuple[int, ...] = (64,), stream: bytes = bytes(64), kind: int = 1,
) -> bytes:  # fmt: skip
    """A section for codes (16, 64) of 16 levels, put together by hand."""
    import zlib

    if deflated is None:
        compress = zlib.compressobj(9, zlib.DEFLATED, -15)
        deflated = compress.compress(bytes(classes) + bytes([9] * levels) if body is None else body) + compress.flush()
    side = bytes([flags, classes - 1, tables - 1, levels - 1]) + deflated
    payload = sections.varint(len(side)) + side + b"".join(map(sections.varint, sizes)) + stream
    return bytes([kind]) + sections.varint(len(payload)) + payload


HAND_MADE = [
    (blob(kind=2), "unknown kind 2"),
    (blob(flags=4), "flags 4"),
    (blob(levels=17), "17 levels"),
    (blob(deflated=b"\xff\xff\xff"), "do not inflate"),
    (blob(body=bytes(16)), "another size"),
    (blob(body=bytes(100_000)), "another size"),
    (blob(deflated=b""), "another size"),
    (blob(body=bytes([0]) + bytes(16)), "holds nothing"),
    (blob(body=bytes([0]) + bytes([200]) * 16), "no frequency"),
    (blob(body=bytes([5]) + bytes([9]) * 16), "no such table"),
    (blob(classes=2, flags=1, body=bytes([0, 0]) + bytes([2] * 16) + bytes([9]) * 16), "no table"),
    (blob(sizes=(60,)), "segments of 60 bytes in 64"),
    (blob(sizes=(2**60,)), "segments of"),
    (blob(stream=bytes(62), sizes=(62,)), "too short or odd"),
    (blob(stream=bytes(65), sizes=(65,)), "too short or odd"),
    (blob(), "out of range"),
    (blob(stream=b"\x00\x00\x01\x00" * 16, sizes=(64,)), "ends early"),
    (blob(stream=b"\xff" * 6400, sizes=(6400,)), "ends late"),
    (b"\x00\x05hello", "codes of 5 bytes"),
    (b"\x01" + b"\xff" * 20, "does not end"),
    (b"\x00\x80\x80\x80\x80\x10hello", "are missing"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HAND_MADE, ids=[message for _, message in HAND_MADE])
def test_a_hostile_section_is_refused_by_name(data: bytes, message: str) -> None:
    format = parse("int4:row")
    with pytest.raises(Refused) as refused:
        coded.decode_matrix(PATH, "w", format, (16, 64), np.frombuffer(data, np.uint8))
    assert message in refused.value.message
    assert refused.value.message.startswith("store: w.coded ")


def test_what_follows_the_last_part_must_be_zeros() -> None:
    tensor = SAMPLES[0]
    assert same(decoded(tensor, STREAMS[0] + bytes(9)), tensor)
    with pytest.raises(Refused, match="goes on"):
        decoded(tensor, STREAMS[0] + b"\x01")
