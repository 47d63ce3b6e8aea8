"""How a format is spelled, and what is derived from it."""

import numpy as np
import pytest

from scrimp.errors import UsageError
from scrimp.formats import ELEMENTS, NAMED, encode, parse

#: What the kernels multiply with, in every block and scale type; of the rest every element, block and scale type once.
KERNEL = ("int2", "int3", "int4", "int5", "int6", "int8", "ternary", "binary")
SPELLINGS = [
    *(f"{element}{z}:{block}{scale}"
      for element in KERNEL
      for z in (("", "z") if element.startswith("int") else ("",))
      for block in ("g32", "g64", "g128", "g256", "row", "tensor")
      for scale in ("", "@f32", "@bf16")),
    *(f"{e.name}:g64" for e in ELEMENTS.values() if e.kind != "float"),
    *(e.name for e in ELEMENTS.values() if e.block is None),
    *NAMED,
    "fixed8.4", "fixed16.8", "sm8.6:g32@e8m0", "nf4:row@e4m3", "int4:g32@e8m0", "fp8_e4m3:g128@f32", "int16z:row@f32",
]  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_name_reads_back_as_itself(text):
    assert parse(text).name == text
    assert parse(parse(text).name) == parse(text)


def test_blocks_and_scales_have_defaults():
    assert parse("int4").name == "int4:g64"
    assert parse("int3z").name == "int3z:g64"
    assert parse("ternary").name == "ternary:row"
    assert parse("binary").name == "binary:row"
    assert parse("int8@f16").name == "int8:g64"
    assert [parse(name).name for name in ("nf4", "quaternary", "lns8", "kmeans4", "ternary2")] == [
        "nf4:g64", "quaternary:g64", "lns8:g64", "kmeans4:g64", "ternary2:row",
    ]  # fmt: skip
    assert [parse(name).scale for name in ("fp8_e4m3", "posit8_1", "fixed8.4", "elma8", "tf32")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", "'int9' is no known format. Hint: Did you mean 'int"),
        ("ternry:row", "Did you mean 'ternary'?"),
        ("f16:g32", "f16 stores values as they are"),
        ("ternaryz", "only integers have an asymmetric form"),
        ("int4:g48", "groups of 48 are not stored"),
        ("int4@e5m2", "'e5m2' is no scale type"),
        ("", "is no known format"),
        ("nf5", "Did you mean 'nf4'?"),
        ("mxfp4:g32", "mxfp4 is complete in itself"),
        ("mxfp4@f16", "mxfp4 is complete in itself"),
        ("fp8_e4m3@f16", "has no scale unless it has a block"),
        ("tf32:row", "tf32 stores values as they are"),
        ("nf4z", "only integers have an asymmetric form"),
        ("int4rz", "only integers have an asymmetric form"),
        ("int4z@e8m0", "a min needs a sign"),
        ("int4@u4", "'u4' is no scale type"),
        ("int4:g", "'g' is no block"),
        ("int4:", "'' is no block"),
        ("int4@", "'' is no scale type"),
        ("int4:g٣٢", "is no block"),
        ("fixed40.2", "is no known format"),
        ("fixed8.99", "is no known format"),
        ("int4:g0", "groups of 0 are not stored"),
        ("int4:g64:g64", "is no known format"),
        ("INT4", "is no known format"),
    ],
)
def test_a_wrong_spelling_is_refused_with_a_hint(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_bits_per_weight_count_scales_and_mins():
    assert parse("int4:g32").bits_per_weight(64, 1024) == 4.5
    assert parse("int4z:g32").bits_per_weight(64, 1024) == 5.0
    assert parse("int3:g64").bits_per_weight(64, 1024) == 3.25
    assert parse("ternary:g256").bits_per_weight(64, 1024) == 1.6625
    assert parse("int8:row@f32").bits_per_weight(64, 1024) == 8 + 32 / 1024


def test_second_scales_shifts_and_codebooks_are_counted():
    assert parse("mxfp4").bits_per_weight(64, 1024) == 4.25
    assert parse("mxfp8_e4m3").bits_per_weight(64, 1024) == 8.25
    assert parse("nvfp4").bits_per_weight(64, 1024) == 4.5 + 32 / 65536
    assert parse("vsq4").bits_per_weight(64, 1024) == 4.25 + 32 / 1024
    assert parse("vsq6").bits_per_weight(64, 1024) == 6.375 + 32 / 1024
    assert [parse(f"smx{n}").bits_per_weight(64, 1024) for n in (4, 6, 9)] == [4, 6, 9]
    assert [parse(f"msfp{n}").bits_per_weight(64, 1024) for n in (12, 16)] == [4.5, 8.5]
    assert [parse(f"q{n}").bits_per_weight(64, 1024) for n in ("4_0", "4_1", "5_0", "5_1", "8_0")] == [
        4.5,
        5,
        5.5,
        6,
        8.5,
    ]
    assert [parse(f"q{n}_k").bits_per_weight(64, 1024) for n in (2, 3, 4, 5, 6)] == [2.625, 3.4375, 4.5, 5.5, 6.5625]
    assert parse("q4_k").bits_per_weight(64, 576) == 4 + 12 / 32 + 3 * 32 / 576
    assert parse("tq2_0").bits_per_weight(64, 1024) == 2.0625
    assert parse("kmeans4:tensor").bits_per_weight(64, 1024) == 4 + (16 * 32 + 16) / 65536


@pytest.mark.parametrize(
    "text", [*NAMED, "nf4", "int16z:g32", "kmeans3:g128", "int4@e4m3", "posit16_1", "fixed15.3", "int7:row"]
)
def test_the_bits_a_format_names_are_the_bits_it_takes(text):
    """Whole tiles and whole vectors of every part; one scale per tensor is kept 16 times."""
    rows, cols = 256, 15_360  # every vector of codes, scales, trits (20) and pair shifts is full
    tensor = encode(np.random.default_rng(0).normal(size=(rows, cols)).astype(np.float32), text)
    spare = 15 * 16 if tensor.format.block == "tensor" else 0
    assert (
        8 * tensor.nbytes - spare
        <= tensor.format.bits_per_weight(rows, cols) * rows * cols + 1e-6
        < 8 * tensor.nbytes + 1
    )


def test_what_the_kernels_run_is_told_apart():
    assert all(
        parse(text).runs
        for text in ("int4", "int4z:g32@bf16", "ternary", "binary:g64", "f16", "bf16", "f32", "q4_0", "int4@e8m0",
                     "nf4", "af4:row", "mxfp4", "iq4nl:g32", "kmeans2", "kmeans3", "kmeans4", "sm4.2:g64")
    )  # fmt: skip
    others = (
        "fp4_e2m1",
        "nvfp4",
        "msfp12",
        "mxfp6_e2m3",
        "int7",
        "int1",
        "uint8",
        "quaternary",
        "ternary2",
        "tf32",
        "fp8_e4m3",
        "vsq4",
        "int4r",
    )
    assert not any(parse(text).runs for text in others)
