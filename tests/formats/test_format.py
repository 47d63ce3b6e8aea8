"""How a format is spelled, and what is derived from it."""

import pytest

from scrimp.errors import UsageError
from scrimp.formats import ELEMENTS, parse

SPELLINGS = [
    f"{element}{z}:{block}{scale}"
    for element in ELEMENTS
    if ELEMENTS[element].kind != "float"
    for z in (("", "z") if ELEMENTS[element].kind == "int" else ("",))
    for block in ("g32", "g64", "g128", "g256", "row", "tensor")
    for scale in ("", "@f32", "@bf16")
] + ["f32", "f16", "bf16"]


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
